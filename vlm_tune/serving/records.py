"""What a serving check found, as records."""

from __future__ import annotations

import html
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import JsonValue, NonNegativeFloat, NonNegativeInt, PositiveInt

from vlm_tune import _console
from vlm_tune.errors import ModelError
from vlm_tune.families import Region
from vlm_tune.records import Record, SavedRecord

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["Engine", "Finding", "LostPart", "RuntimeAdapter", "ServerCommand", "ServingCheck"]

Engine = Literal["vllm", "sglang"]
"""A server that speaks OpenAI's chat completions."""

_NAMES: Mapping[Engine, str] = {"vllm": "vLLM", "sglang": "SGLang"}


class Finding(Record):
    """Something about a folder that a server would trip over."""

    level: Literal["error", "warning"]
    """`error`: it will not start, or not answer as the model does. `warning`: it may not."""
    what: str
    """What is wrong, and where."""
    next_step: str
    """What to do about it."""


class LostPart(Record):
    """Adapted layers of one region that a server does not put on."""

    region: Region
    """Where they are."""
    modules: NonNegativeInt
    """Adapted layers."""
    share: NonNegativeFloat
    """Their share of all trained parameters, from 0 to 1."""
    parameters: NonNegativeInt | None
    """Their trained parameters; None where only the merged model is there, which does not tell the rank."""
    layers: tuple[str, ...]
    """Their names, `*` for a layer's number, each once."""


class RuntimeAdapter(Record):
    """What becomes of an adapter that a server loads beside the base, in place of the merged model."""

    engine: Engine
    """The server."""
    lost: tuple[LostPart, ...]
    """What it leaves out."""
    refused: tuple[str, ...] = ()
    """Why it does not load the adapter at all; empty where it does, and where only the merged model is there."""
    altered: tuple[str, ...] = ()
    """What it computes otherwise than in training."""
    kept_by: str | None = None
    """Option with which it puts on what it would else leave out, where it has one."""

    @property
    def lost_share(self) -> float:
        """Share of the trained parameters that is lost, from 0 to 1."""
        return sum(part.share for part in self.lost)

    @property
    def sentence(self) -> str:
        """The same in words."""
        name = _NAMES[self.engine]
        regions = " and ".join(f"{part.region} ({part.modules} layers)" for part in self.lost)
        lost = f"{regions}, {100 * self.lost_share:.1f} % of what was trained"
        flag = f", unless started with {self.kept_by}, which is experimental" if self.kept_by else ""
        parts = []
        if self.refused:
            would = f" and would leave out {lost}" if self.lost else ""
            parts.append(f"{name} refuses it ({'; '.join(self.refused)}){would}.")
        elif self.lost:
            parts.append(f"{name} leaves out {lost}{flag}.")
        parts += [f"{name} {change}." for change in self.altered]
        return " ".join(parts) or f"{name} puts all of it on."


class ServerCommand(Record):
    """How a server is started for the merged folder."""

    engine: Engine
    """The server."""
    argv: tuple[str, ...]
    """The command, word by word, as `subprocess` takes it."""
    url: str
    """Where it will answer: the `base_url` of `OpenAICompatible`."""
    model: str
    """The model's name there."""

    @property
    def shell(self) -> str:
        """The command for a shell, one option a line."""
        lines: list[list[str]] = [[]]
        for word in self.argv:
            if word.startswith("--"):
                lines.append([])
            lines[-1].append(shlex.quote(word))
        return " \\\n    ".join(" ".join(line) for line in lines)


class ServingCheck(SavedRecord):
    """What must be known before a trained model is served.

    Examples:
        >>> command = ServerCommand(
        ...     engine="vllm", argv=("vllm", "serve", "merged"), url="http://127.0.0.1:8000/v1", model="merged"
        ... )
        >>> check = ServingCheck(
        ...     folder=Path("merged"), kind="merged", model=Path("merged"), architecture="qwen3_vl", dtype="bfloat16",
        ...     max_pixels=1_048_576, processor_settings={}, commands=(command,), runtime=(), findings=()
        ... )
        >>> print(check.ok, check.command("vllm").shell)
        True vllm serve merged
    """

    saved_as: ClassVar[str] = "serving check"
    folder: Path
    """The folder that was checked."""
    kind: Literal["merged", "adapter"]
    """What it holds."""
    model: Path
    """The folder to serve: the merged one."""
    architecture: str
    """The `model_type` of its configuration."""
    dtype: str
    """Type of its weights."""
    max_pixels: PositiveInt
    """Image budget that the model was trained with, in pixels; clients shrink larger photos to it."""
    processor_settings: Mapping[str, JsonValue]
    """What the server's image processor is told beyond the folder's own settings; empty where nothing."""
    commands: tuple[ServerCommand, ...]
    """How to start each server."""
    runtime: tuple[RuntimeAdapter, ...]
    """What an adapter loaded at run time would lose on each server; empty where the adapter is not known."""
    findings: tuple[Finding, ...]
    """What a server would trip over, errors first."""

    @property
    def ok(self) -> bool:
        """Whether nothing keeps a server from answering as the model does."""
        return all(finding.level != "error" for finding in self.findings)

    @property
    def lost(self) -> dict[Engine, tuple[LostPart, ...]]:
        """What an adapter loaded at run time would lose, by server."""
        return {adapter.engine: adapter.lost for adapter in self.runtime}

    def command(self, engine: Engine) -> ServerCommand:
        """Return how to start a server."""
        return next(command for command in self.commands if command.engine == engine)

    def raise_if_failed(self) -> Self:
        """Return the check itself.

        Raises:
            ModelError: There is an error among the findings.
        """
        errors = [f"{finding.what}; {finding.next_step}" for finding in self.findings if finding.level == "error"]
        if errors:
            raise ModelError(f"{self.model} cannot be served as it is: {'. '.join(errors)}")
        return self

    def _rich(self) -> RenderableType:
        """Draw the findings and what a runtime adapter would lose; the commands come after, ready to be copied."""
        from rich.console import Group

        return Group(*self._tables())

    def _print(self) -> None:
        from rich.text import Text

        super()._print()
        _console.show(Text(f"\n{self._copyable()}"), wrap=False)

    def to_html(self) -> str:
        """Return the tables and the commands as an HTML fragment."""
        return f"{super().to_html()}<pre>{html.escape(self._copyable())}</pre>"

    def _copyable(self) -> str:
        commands = (f"# {_NAMES[one.engine]}, answers at {one.url}\n{one.shell}" for one in self.commands)
        return "\n\n".join(commands)

    def frame(self) -> pd.DataFrame:
        """Return one row a region and server: what an adapter loaded at run time would lose."""
        import pandas as pd

        columns = ["engine", *LostPart.model_fields]
        rows = [{"engine": one.engine, **part.model_dump()} for one in self.runtime for part in one.lost]
        return pd.DataFrame(rows, columns=columns)

    def _tables(self) -> list[RenderableType]:
        from rich.table import Table
        from rich.text import Text

        facts = Table("serving check", str(self.folder))
        facts.add_row("holds", "a merged model" if self.kind == "merged" else f"an adapter; serve {self.model}")
        facts.add_row("architecture, type", f"{self.architecture}, {self.dtype}")
        facts.add_row("image budget", f"{self.max_pixels:,} pixels")
        for adapter in self.runtime:
            facts.add_row(f"adapter at run time, {_NAMES[adapter.engine]}", Text(adapter.sentence))
        facts.add_row("findings", self._count())
        return [facts, *([self._findings_table()] if self.findings else [])]

    def _findings_table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table("level", "what", "next step")
        for finding in self.findings:
            table.add_row(finding.level, Text(finding.what), Text(finding.next_step))
        return table

    def _count(self) -> str:
        errors = sum(finding.level == "error" for finding in self.findings)
        return f"{errors} errors, {len(self.findings) - errors} warnings" if self.findings else "none"
