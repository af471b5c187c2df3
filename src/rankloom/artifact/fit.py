"""Whether the parts of an artifact fit each other: tables, vocabularies, programs, state.

Nothing in a file is trusted, so that whatever a part relies on is checked before it is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from rankloom.artifact.manifest import PROGRAMS, Manifest
from rankloom.data.id_rows import FIRST_HASH_ROW, FIRST_KEY_ROW, unified_sizes
from rankloom.data.key_index import Arrays, KeyIndex
from rankloom.errors import ArtifactError, join_problems
from rankloom.hoist import Program
from rankloom.hoist.capture import CROSSINGS
from rankloom.layers.protocols import Layout
from rankloom.schema import QuantileEncoding, Rate

TABLE, SCALE, NUMERIC, CONSTANT = "table/", "scale/", "numeric/", "constant/"
"""What the names of tensors in the weights file begin with."""
RATE_OF_PROGRAM = {"user": Rate.USER, "request": Rate.REQUEST, "candidate": Rate.CANDIDATE}
MAX_VECTOR_DIM = 1 << 20


@contextmanager
def refusing(where: str, what: str = "cannot run") -> Iterator[None]:
    """Turn whatever goes wrong while a part of an artifact is used into one error that names it.

    Args:
        where: The part.
        what: What it cannot do.

    Raises:
        ArtifactError: In place of any other error.
    """
    try:
        yield
    except ArtifactError:
        raise
    except Exception as error:  # noqa: BLE001 (a program may hold anything)
        lines = str(error).strip().splitlines() or [""]
        raise ArtifactError(
            f"{where}: {what}. Got {type(error).__name__}: {lines[0][:200]} Export the run again."
        ) from None


def check_tables(
    manifest: Manifest,
    tensors: Mapping[str, Tensor],
    indexes: Mapping[str, KeyIndex],
    *,
    where: str,
) -> None:
    """Check that every table has the rows that its ids may name.

    Args:
        manifest: Says what there should be.
        tensors: Of the weights file.
        indexes: Table -> index of its vocabulary's keys.
        where: What errors call the artifact.

    Raises:
        ArtifactError: A table is missing, has other rows, or is no feature's; all such are named.
    """
    num_keys = {name: _count_keys(index.arrays()) for name, index in indexes.items()}
    problems = [*_table_problems(manifest, num_keys), *_feature_problems(manifest)]
    if len({entry.storage for entry in manifest.tables.values()}) > 1:
        problems.append("tables must all be float32 or all be int8. Got both.")
    for name, entry in manifest.tables.items():
        table = tensors.get(TABLE + name)
        kind = torch.int8 if entry.storage == "int8" else torch.float32
        if table is None:
            problems.append(f"table {name!r} is missing in the weights.")
        elif table.dim() != 2 or len(table) != entry.num_embeddings or table.dtype != kind:
            problems.append(
                f"table {name!r} must have {entry.num_embeddings} rows of {entry.storage}. Got "
                f"{_form(table)}."
            )
        elif entry.storage == "int8":
            scale = tensors.get(SCALE + name)
            if scale is None or scale.shape != table.shape[:1] or scale.dtype != torch.float32:
                got = "none" if scale is None else _form(scale)
                problems.append(
                    f"table {name!r} must have one float32 scale for each row. Got {got}."
                )
    _refuse(problems, where)


def check_programs(
    manifest: Manifest, programs: Mapping[str, Program], layout: Layout, *, where: str
) -> None:
    """Check that programs read what there is at their rate, and give what is asked of them.

    Args:
        manifest: Says what there should be.
        programs: Name -> program.
        layout: Of the inputs.
        where: What errors call the artifact.

    Raises:
        ArtifactError: They do otherwise; all such are named.
    """
    problems = [
        f"{PROGRAMS}/{name}.json is missing."
        for name in ("candidate", "one_request")
        if name not in programs
    ]
    state: dict[str, Rate] = {}
    for name in ("user", "request", "candidate", "one_request"):
        if name not in programs:
            continue
        program, rate = programs[name], RATE_OF_PROGRAM.get(name, Rate.CANDIDATE)
        found = [*_input_problems(program, rate, state, layout)]
        if rate < Rate.CANDIDATE:
            found += _state_problems(program, state)
            state |= dict.fromkeys(program.outputs, rate)
        elif _num_results(program) != len(manifest.outputs):
            found.append(f"gives {_num_results(program)} results, not {len(manifest.outputs)}.")
        problems += [f"{PROGRAMS}/{name}.json {problem}" for problem in found]
    tasks = tuple(manifest.tasks)
    if sorted(manifest.outputs) != sorted(tasks):
        problems.append(f"outputs must be the tasks, {', '.join(tasks)}. Got {manifest.outputs}.")
    said = {one.name: RATE_OF_PROGRAM[one.rate] for one in manifest.state if "/" not in one.name}
    if not problems and said != state:
        odd = sorted(name for name in said | state if said.get(name) != state.get(name))
        problems.append(f"state {', '.join(odd[:5])} is not what the programs make.")
    _refuse(problems, where)


def _count_keys(arrays: Arrays) -> int:
    """Count a vocabulary's keys from the arrays of its index."""
    if "positions" in arrays:
        return int(arrays["positions"].max()) + 1
    return len(arrays["hashes"])


def _table_problems(manifest: Manifest, num_keys: Mapping[str, int]) -> Iterator[str]:
    schema = manifest.schema_of_log
    rows: dict[str, int | None] = {**unified_sizes(schema)}
    for table, source in schema.tables().items():
        if source.num_embeddings is not None:
            rows[table] = source.num_embeddings
        elif source.hash_buckets is not None:
            rows[table] = FIRST_HASH_ROW + source.hash_buckets
        elif table in num_keys:
            rows[table] = FIRST_KEY_ROW + num_keys[table]
        else:
            yield f"table {table!r} has no vocabulary."
    for name, feature in schema.dense.items():
        if isinstance(feature.encode, QuantileEncoding):
            boundaries = getattr(manifest.embedder.statistics.get(name), "boundaries", None)
            if boundaries is None:
                yield f"feature {name!r} has no boundaries of its buckets."
            rows[name] = None if boundaries is None else len(boundaries) + 2
    for name, count in rows.items():
        entry = manifest.tables.get(name)
        if entry is None or entry.num_embeddings != (count or entry.num_embeddings):
            got = "none" if entry is None else entry.num_embeddings
            yield f"table {name!r} must have {count} rows. Got {got}."
    sets = set(manifest.embedder.sets)
    for name in manifest.tables:
        table, _, embedding_set = name.partition("@")
        if table not in rows or (embedding_set and embedding_set not in sets):
            yield f"table {name!r} is no feature's."


def _feature_problems(manifest: Manifest) -> Iterator[str]:
    schema, about = manifest.schema_of_log, manifest.embedder
    ids = {f"{c.feature}.{c.name}" if c.name else c.feature for c in schema.id_columns()}
    odd = [one for one in about.ids if one not in ids]
    odd += [one for one in about.length_multiple if one not in schema.sequences]
    if odd:
        yield f"embedder names features that there are not: {', '.join(odd)}."
    wide = [name for name, one in schema.vectors.items() if one.dim > MAX_VECTOR_DIM]
    if wide:
        yield f"features {', '.join(wide)} have more than {MAX_VECTOR_DIM} numbers."


def _input_problems(
    program: Program, rate: Rate, state: Mapping[str, Rate], layout: Layout
) -> Iterator[str]:
    for name in program.inputs:
        if name in CROSSINGS:
            known: Rate | None = Rate.CANDIDATE
        else:
            known = rate_of_input(name, layout) if "/" in name else state.get(name)
        if known is None:
            yield f"reads {name!r}, which no program makes and no feature gives."
        elif known > rate:
            yield f"reads {name!r}, which differs more often than it runs."


def rate_of_input(path: str, layout: Layout) -> Rate | None:
    """Give how often a path of the network's inputs differs; none, if there is no such."""
    kind, _, name = path.partition("/")
    if kind == "sequences":
        name, _, part = name.partition("/")
        sequence = layout.sequences.get(name)
        if sequence is None or not (part in {"events", "mask"} or part.startswith("times/")):
            return None
        return max(sequence.rate, Rate.REQUEST if part == "times/age_newest" else Rate.USER)
    at = layout.features.get(name) if kind in {"features", "ids"} else None
    return None if at is None else at.rate


def _state_problems(program: Program, state: Mapping[str, Rate]) -> Iterator[str]:
    if _num_results(program) != len(program.outputs):
        yield f"gives {_num_results(program)} results, not {len(program.outputs)}."
    names = list(program.outputs)
    odd = {one for one in names if one in CROSSINGS or "/" in one or one in state}
    odd |= {one for one in names if names.count(one) > 1}
    if odd:
        yield f"makes what is there already: {', '.join(sorted(odd))}."


def _num_results(program: Program) -> int:
    output = next(node for node in reversed(program.module.graph.nodes) if node.op == "output")
    results = output.args[0]
    return len(results) if isinstance(results, tuple | list) else 1


def _form(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


def _refuse(problems: list[str], where: str) -> None:
    if problems:
        raise ArtifactError(join_problems(problems, where=where) + " Export the run again.")
