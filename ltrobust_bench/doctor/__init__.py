"""What a bug report needs: what is installed, on which machine, with which data, and what is wrong with it."""
