"""What ``claims.toml`` states, and its types."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from ltrobust_bench.cards import methods, plugins
from ltrobust_bench.terms import Strict

Group = Literal["all", "head", "medium", "tail"]
EVERY_ENTRY = "*"
PLACEHOLDERS = ("X", "Y")


def _as_list(given: object) -> object:
    return [given] if isinstance(given, str) else given


Case = Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1, max_length=len(PLACEHOLDERS))]
Term = tuple[float, str, str]


Terms = Annotated[
    list[Annotated[Term, BeforeValidator(tuple)]],
    Field(min_length=1, description="weight, clean or an attack or union, entry"),
]


class Gain(Strict):
    """A sum that must be resolved above 0, or there is nothing to be said: who gains nothing has no fake gain."""

    quantity: str = Field(description="in words, what the terms add up to")
    terms: Terms


class Claim(Strict):
    """Something that a paper says, as what must hold of a board."""

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    method: str = Field(description="method or plug-in whose paper says it")
    says: str
    quantity: str = Field(description="in words, what the terms add up to")
    cases: list[Case] = Field(default=[], description="entries for X (and Y) of the terms, one comparison each")
    terms: Terms
    given: Gain | None = Field(default=None, description="what a case must have to be judged")
    constant: float = Field(default=0.0, description="added to the sum of each image")
    groups: list[Group] = ["all"]
    direction: Literal["above", "within"] = Field(
        default="above", description="above 0, or nowhere further from 0 than the margin"
    )
    margin: float = Field(default=0.0, ge=0, description="points")
    holds: Literal["every", "some"] = Field(default="every", description="case must show it")

    @field_validator("method")
    @classmethod
    def _is_ours(cls, slug: str) -> str:
        if slug not in methods and slug not in plugins:
            raise ValueError("must be a method or plug-in of ours")
        return slug

    @property
    def summed(self) -> list[Term]:
        """All its terms, those of the supposed gain among them."""
        return [*self.terms, *(self.given.terms if self.given else [])]

    def entries(self) -> list[str]:
        """Entries that it names, each once."""
        named = [entry for _, _, entry in self.summed] + [entry for case in self.cases for entry in case]
        return [entry for entry in dict.fromkeys(named) if entry not in (*PLACEHOLDERS, EVERY_ENTRY)]


class Claims(Strict):
    """All claims, and the boards that they are about."""

    protocol: str
    dataset: str
    permuted: str = Field(description="data set of the same images with the class sizes in another order")
    claims: list[Claim]


def stated_claims() -> Claims:
    """The claims that the package states."""
    text = files("ltrobust_bench.report.claims").joinpath("claims.toml").read_text(encoding="utf-8")
    return Claims.model_validate(tomllib.loads(text))
