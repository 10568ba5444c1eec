"""Classes of mutations of a record, each with its verdict."""

from record_mutations import circumstances, files, harmless, terms
from record_mutations.tools import MUTATIONS, Json, Mutation, NotApplicableError, Sample

__all__ = [
    "MUTATIONS",
    "Json",
    "Mutation",
    "NotApplicableError",
    "Sample",
    "circumstances",
    "files",
    "harmless",
    "terms",
]
