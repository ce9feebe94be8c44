# SPDX-License-Identifier: Apache-2.0
"""What one run is made of: the model of the YAML file.

Rules: one class per section, one field per key, and every field describes itself, because ``insitu schema`` and the
reference configuration are read by people. Unknown keys are mistakes. A `Config` is frozen: whatever a run changes
about itself is state of the run and stands elsewhere. Only what works is accepted; a key is added together with the
feature behind it.
"""

import hashlib
import json
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    field_serializer,
    model_validator,
)

from insitu import registry
from insitu.config.places import Path, Places
from insitu.config.plugins import OperatorEntry
from insitu.config.section import Section
from insitu.config.steering import Steering, SteeringOrRules
from insitu.config.values import (
    Bytes,
    ClusterName,
    Command,
    Count,
    DtypeName,
    Host,
    Identifier,
    Indices,
    Interface,
    Room,
    RunName,
    Seconds,
    TracesTo,
)
from insitu.errors import Problem
from insitu.learner import Learner
from insitu.model import parameter_of
from insitu.operator import Operator


class Simulation(Section):
    """The program that publishes, and how its ranks are started."""

    command: Command = Field(
        default=(), description="program and arguments: a list, or one line that is split as a shell would"
    )
    ranks: Count = Field(default=1, description="processes of the simulation")
    launcher: Literal["local", "mpiexec", "external"] = Field(
        default="local",
        description="local: plain processes, told apart by INSITU_RANK and INSITU_SIZE; mpiexec: mpiexec -n RANKS; "
        "external: started by hand, with INSITU_CONTACT set to the contact file that the run prints",
    )
    environment: dict[str, str] = Field(default={}, description="variables added to the environment of every rank")
    directory: str | None = Field(default=None, description="the ranks' working directory; null: that of the run")
    steps: Count | None = Field(
        default=None, description="how many steps it is going to publish, for the time that is left; null: not known"
    )

    @model_validator(mode="after")
    def _command_fits_launcher(self) -> "Simulation":
        if not self.command and self.launcher != "external":
            raise ValueError(f"command is missing or empty: the launcher {self.launcher} has nothing to start")
        return self


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


_NonEmpty = Annotated[tuple[str, ...], Field(min_length=1)]
Names = Annotated[_NonEmpty, BeforeValidator(_as_tuple, json_schema_input_type=str | _NonEmpty)]


class Staging(Section):
    """The Dask workers that receive blocks and fold them."""

    cluster: ClusterName = Field(
        default="local",
        description="local: workers on this machine; else the address (tcp://host:8786) or the scheduler file (.json) "
        "of a Dask cluster that is there already",
    )
    nodes: Count = Field(default=1, description="staging nodes: one Dask worker each")
    transport: Literal["auto", "shm", "ipc", "tcp"] = Field(
        default="auto",
        description="auto: shared memory between processes of one machine, tcp between machines; shm: also fails where "
        "no shared memory can be had; ipc: local sockets instead of shared memory; tcp: never either",
    )
    memory: Bytes = Field(default=2 * 2**30, description="bytes that one node may hold: a hard bound")
    retain: Room = Field(
        default=64 * 2**20,
        description="bytes beside memory in which one node keeps copies of the newest steps, for who looks; 0 B: none",
    )
    racks: dict[str, Names] = Field(
        default={},
        description="by a label of your choice, the hosts of a rack, as patterns: n01*; a rank without a staging node "
        "on its own host is given one of its rack",
    )


class Buffering(Section):
    """What a rank does with steps that the staging side has not taken yet."""

    policy: Literal["block", "latest", "drop_oldest", "drop_newest", "every", "spill"] = Field(
        default="block",
        description="what happens to a step without room. block: it waits; drop_newest: it is dropped; drop_oldest: it "
        "takes the place of older ones that wait; latest: so too, and only the newest step ever waits; every: it is "
        "dropped, but one of so many waits; spill: it goes to the disk of its node",
    )
    every: Count | None = Field(default=None, description="with policy every: of so many steps one is not dropped")
    buffer: Bytes = Field(default=256 * 2**20, description="bytes that one rank may hold back")
    free: Literal["auto", "received", "folded", "durable"] = Field(
        default="auto",
        description="when a step's part of the buffer is free again: when all its staging nodes have received it, or "
        "have folded it; auto: in shared memory folded, else received; durable (in a checkpoint): not yet",
    )
    max_wait: Seconds = Field(default=60.0, description="longest wait for room, in seconds or as 500 ms or 2 min")
    then: Literal["drop", "abort", "spill"] = Field(
        default="drop",
        description="after that wait, drop: the step is lost and counted; abort: the simulation ends; spill: it goes "
        "to the disk, and is lost where that is full",
    )
    spill: Bytes = Field(default=4 * 2**30, description="bytes that one rank may have on the disk, where it spills")
    spill_directory: str | None = Field(
        default=None, description="a folder of the nodes' own disks for that; null: TMPDIR of the ranks, or /tmp"
    )

    @property
    def spills(self) -> bool:
        """Whether a step may go to the disk."""
        return "spill" in (self.policy, self.then)


class Network(Section):
    """Where the controller and the staging nodes listen, and whether what passes between them is encrypted."""

    interface: Interface = Field(
        default="auto",
        description="the controller's: the name or the IPv4 address of one; auto: loopback, which only this machine "
        "reaches, and with a Dask cluster that is there already the one by which its scheduler is reached",
    )
    security: Literal["auto", "curve"] = Field(
        default="auto",
        description="auto: CurveZMQ, which encrypts and admits only those with the run's keys, on all but loopback; "
        "curve: there too",
    )


class Expect(Section):
    """What a variable is going to be: so ``insitu check`` knows all results. What a rank puts is compared with it."""

    dims: tuple[str, ...] = Field(description="the names of its dimensions")
    shape: tuple[Count | None, ...] = Field(
        description="its global shape; null for the first dimension where ranks' rows are joined"
    )
    dtype: DtypeName = Field(default="float64", description="its dtype as the ranks put it")
    units: str = Field(default="", description="its units, as a UDUNITS string")
    rows: Count | None = Field(default=None, description="of a joined variable, how many rows to reckon with")

    @model_validator(mode="after")
    def _one_length_for_each(self) -> "Expect":
        if len(self.dims) != len(self.shape):
            raise ValueError(f"dims names {len(self.dims)} dimensions and shape has {len(self.shape)} lengths")
        if None in self.shape[1:]:
            raise ValueError("only the first length of shape can be null, as rows are joined along the first dimension")
        if self.rows is not None and None not in self.shape:
            raise ValueError(
                "rows has no meaning for a variable with a shape; leave it out, or make the first length null"
            )
        return self


class Dashboard(Section):
    """The pages that show a run while it goes on."""

    port: Annotated[int, Field(strict=True, ge=0, le=65535)] = Field(
        default=8787, description="where it listens; the next free port where this one is taken, 0: any free one"
    )
    host: Host = Field(
        default="127.0.0.1",
        description="the address it listens at: loopback, which only this machine reaches (and ssh -L), or another one "
        "of this machine; whoever reaches it still needs the token, but what passes is not encrypted",
    )


class Traces(Section):
    """Traces for OpenTelemetry: of some steps, from the put to the result, in all processes."""

    to: TracesTo = Field(
        default="traces.jsonl",
        description="a file of OTLP's JSON, in the run's directory; or where a collector takes OTLP over HTTP, such as "
        "http://localhost:4318",
    )
    every: Count = Field(default=100, description="of so many published steps one is traced; at most 20 a second")


class Rules(Buffering):
    """What of a variable leaves its rank; under ``"*"`` of every variable, and there also what a full buffer does."""

    expect: Expect | None = Field(
        default=None, description='what the variable is going to be, for insitu check; not under "*"'
    )

    select: dict[str, Indices] = Field(
        default={},
        description='by dim, which indices are sent, as slices of the whole array: "0:256", "::4", "-8:"; '
        'by step, which published steps, counted from 0: "::10"',
    )
    dtype: Literal["float32", "float16"] | None = Field(
        default=None, description="floats of more bits are sent as this; null: as they are put"
    )
    codec: Literal["none", "lz4", "zstd", "zfp", "auto"] = Field(
        default="none",
        description="how blocks are encoded on tcp links: lz4 and zstd without loss, zfp within the tolerance; auto: "
        "none, lz4 or zstd, by what is fastest at the start",
    )
    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="largest absolute error that zfp may make; only with codec zfp"
    )


class Output(Section):
    """Where results go, and which blocks are recorded."""

    of: Names = Field(default=("*",), description='an operator (of record: a variable), a list of them, or "*" for all')
    to: Literal["zarr", "record", "console"] = Field(
        default="zarr",
        description="zarr: results, to results.zarr in the run's directory; record: published blocks as they came, to "
        "recording.zarr, for insitu replay; console: results, to the consoles that follow them, and nowhere else",
    )


class Config(Section):
    """A whole configuration. Made by `insitu.config.load`, which also knows where each key stands."""

    run: RunName = Field(description="name of the run and of its directory")
    directory: str = Field(default="runs", description="folder in which each run gets a directory of its own")
    simulation: Simulation = Field(description="the program that publishes")
    staging: Staging = Field(default=Staging(), description="the Dask workers that fold")
    network: Network = Field(default=Network(), description="where the run listens, and who may connect")
    variables: dict[str, Rules] = Field(
        default={"*": Rules()},
        description='by its name, what of a variable is sent; "*" stands for all that do not say otherwise, and for '
        "what a full buffer does",
    )
    operators: dict[Identifier, OperatorEntry] = Field(
        min_length=1, description="what is folded or learnt, by a name of your choice"
    )
    steering: SteeringOrRules = Field(
        default=Steering(),
        description="what acts on the simulation, and how ranks agree on it; a list is short for its rules",
    )
    outputs: tuple[Output, ...] = Field(default=(Output(),), description="where results go")
    dashboard: Dashboard | None = Field(default=None, description="the pages that show the run; null: none")
    traces: Traces | None = Field(default=None, description="traces for OpenTelemetry; null: none")

    _places: Places = PrivateAttr(default_factory=Places)

    @property
    def folds(self) -> dict[str, Operator]:
        """The operators that fold."""
        return {name: each for name, each in self.operators.items() if isinstance(each, Operator)}

    @property
    def learners(self) -> dict[str, Learner]:
        """The operators that learn, in processes of their own."""
        return {name: each for name, each in self.operators.items() if isinstance(each, Learner)}

    @property
    def buffering(self) -> Buffering:
        """What a full buffer does; one rule for all variables of a rank."""
        return self.variables.get("*", Rules())

    def rules(self, name: str) -> Rules:
        """What of a variable is sent: the keys of its own entry, and those of ``"*"`` where it says nothing.

        Of those only the steps hold for a parameter, which has no cells.
        """
        own, rest = self.variables.get(name, Rules()), self.variables.get("*", Rules())
        if parameter_of(name) is not None:
            rest = Rules(select={dim: indices for dim, indices in rest.select.items() if dim == "step"})
        return rest.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})

    @field_serializer("variables")
    def _only_what_was_said(self, variables: dict[str, Rules]) -> dict[str, Any]:
        """Defaults are written out for all variables; for one they would hide what is said for all."""
        return {name: rules.model_dump(mode="json", exclude_unset=name != "*") for name, rules in variables.items()}

    @property
    def recorded(self) -> frozenset[str]:
        """The variables whose blocks are recorded; ``"*"`` stands for all."""
        return frozenset(name for output in self.outputs if output.to == "record" for name in output.of)

    def __eq__(self, other: object) -> bool:
        """Whether both say the same, wherever it was written."""
        return isinstance(other, Config) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    def remember(self, places: Places) -> None:
        """Keep where each key stands, for `problem`."""
        self._places = places

    def problem(self, path: Path, message: str) -> Problem:
        """A mistake in this configuration, with its file and line, found after it was loaded."""
        return self._places.problem(path, message)

    def resolved(self) -> dict[str, Any]:
        """The configuration with its defaults written out (see `plugin_entry`), as plain JSON data."""
        return self.model_dump(mode="json")

    def resolved_yaml(self) -> str:
        """The same as YAML, which loads to a configuration with the same `config_hash`."""
        return yaml.safe_dump(self.resolved(), sort_keys=False, allow_unicode=True)


def config_hash(config: Config) -> str:
    """Return 16 hexadecimal digits that are equal for equal configurations, however they were written."""
    operators = {
        name: [registry.use_of(type(each)), each.model_dump(mode="json")] for name, each in config.operators.items()
    }
    text = json.dumps(config.resolved() | {"operators": operators}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
