"""Where jobs are done: one file per kind of executor, found by a scan. Imports no torch, no Ray and no submitit."""
