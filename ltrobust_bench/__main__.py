"""``python -m ltrobust_bench``, which is how ``torchrun`` starts a program."""

from ltrobust_bench.cli.main import main

if __name__ == "__main__":
    main()
