"""Checkpoints made to do harm, and honest ones that were damaged: always the same for the same seed."""

from __future__ import annotations

import json
import pickle
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from typing import Any

import torch
from containers import CANARY, Runs, Writes, honest, saved, script, state, tensor_pickle, with_header, zipped
from safetensors.torch import save
from torch import nn

Make = Callable[[random.Random], bytes]


def _nested_key(depth: int) -> bytes:
    return b"\x80\x02})" + b"\x85" * depth + b"K\x01s."


def _doubled_tuples(rng: random.Random) -> bytes:
    """To hash a key of n tuples, each with the one before in it twice, takes 2ⁿ steps."""
    steps = b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(rng.randint(50, 120)))
    return b"\x80\x02})" + steps + b"K\x01s."


def _collisions(rng: random.Random) -> bytes:
    """Integers of one hash: each new key is compared with all before."""
    return pickle.dumps({k * (2**61 - 1): None for k in range(rng.randint(20_000, 40_000))}, protocol=2)


def _huge_bytearray(rng: random.Random) -> bytes:
    size = pickle.dumps(rng.randint(6 * 10**9, 10**12), protocol=2)[2:-1]
    return b"\x80\x02c__builtin__\nbytearray\n" + size + b"\x85R."


def _archive_of(data: bytes, body: bytes = bytes(16)) -> bytes:
    return zipped({"data.pkl": data, "byteorder": b"little", "data/0": body, "version": b"3\n"})


def _bomb(rng: random.Random) -> bytes:
    numbers = rng.randint(25, 75) * 10**6
    entries = {"data.pkl": tensor_pickle(numbers), "data/0": bytes(4 * numbers), "version": b"3\n"}
    return zipped(entries, zipfile.ZIP_DEFLATED)


def _overlapping_entries(rng: random.Random) -> bytes:
    """A directory that names one entry many times."""
    content = zipped({"data.pkl": tensor_pickle(250_000), "data/0": bytes(1_000_000)})
    end = content.rindex(b"PK\x05\x06")
    begin = int.from_bytes(content[end + 16 : end + 20], "little")
    count = rng.randint(2_000, 20_000)
    directory = content[begin:end] * count
    entries = min(2 * count, 0xFFFF)
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, entries, entries, len(directory), begin, 0)
    return content[:begin] + directory + tail


def _flipped_body(rng: random.Random) -> bytes:
    """One bit, in the numbers of a weight; they stay finite."""
    content = bytearray(saved(state()))
    numbers = state()["5.weight"].numpy().tobytes()
    content[content.index(numbers) + 4 * rng.randrange(len(numbers) // 4)] ^= 1 << rng.randrange(8)
    return bytes(content)


def _parts_of_one(rng: random.Random) -> bytes:
    numbers = torch.zeros(rng.randint(1, 3) * 10**6)
    return saved({f"w{n}": numbers[n:] for n in range(5_000)})


def _deep_network(rng: random.Random) -> bytes:
    """Names of the thin ResNet with the most layers."""
    weights = {
        f"layer{s}.{n}.conv1.weight": torch.zeros(1) for s in (1, 2, 3) for n in range(rng.randint(1600, 1666))
    }
    return saved(weights | {"conv1.weight": torch.zeros(16, 3, 3, 3), "fc.weight": torch.zeros(10, 64)})


def _old_tar(rng: random.Random) -> bytes:
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("sys_info", "pickle", "tensors", f"../{CANARY}"):
            content = pickle.dumps(Runs(), protocol=2)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))
    return buffer.getvalue()


def _odd_tensors(rng: random.Random) -> bytes:
    made: list[Callable[[], torch.Tensor]] = [
        lambda: torch.eye(5).to_sparse(),
        lambda: torch.empty(3, device="meta"),
        lambda: torch.zeros(1).expand(10**13),
        lambda: torch.zeros(10**15, 0),
        lambda: torch.ones(3, dtype=torch.complex64),
        lambda: torch.full((3,), float("nan")),
        lambda: torch.zeros(3, dtype=torch.bool),
        lambda: torch.ones(3).to(torch.float8_e5m2),
        lambda: torch.tensor(1e300, dtype=torch.float64),
    ]
    names = ["7.weight", "mean", "w", "\ud800", "\x1b[31m", "1." * 400]
    return saved(state() | {rng.choice(names): rng.choice(made)() for _ in range(rng.randint(1, 3))})


def _odd_types(rng: random.Random) -> bytes:
    types = ("F4", "F6_E2M3", "F8_E8M0", "F8_E4M3", "F8_E5M2", "C64", "BOOL", "I4", "x" * 10**6, 5, None)
    header = {"w": {"dtype": rng.choice(types), "shape": [rng.choice([8, 16, 10**18, -1])], "data_offsets": [0, 16]}}
    return with_header(header, bytes(16))


def _odd_metadata(rng: random.Random) -> bytes:
    deep = rng.choice([200, 900, 5_000, 200_000])
    texts = [
        "[" * deep + "]" * deep,
        json.dumps({"format_version": 1, "arch": "x" * 10**6}),
        json.dumps({"format_version": "9" * 10**6}),
        '{"format_version": 1, "num_classes": ' + "9" * 10**5 + "}",
        json.dumps({"format_version": 1, "training": {"x" * 10**6: 1}}),
        '{"format_version": 1, "training": ' + '{"a":' * deep + "1" + "}" * deep + "}",
        "x" * 2_000_000,
    ]
    return save(state(), metadata={"caa": rng.choice(texts)})


def _deep_header(rng: random.Random) -> bytes:
    return with_header(b'{"w":' * rng.choice([500, 100_000]))


def _long_names(rng: random.Random) -> bytes:
    name = rng.choice(["1.", "module.", "x", "\u202e"]) * rng.choice([350_000, 1_000_000])
    weights = {name: torch.zeros(3)}
    return rng.choice([lambda: save(weights), lambda: saved(weights), lambda: saved({name: 1, "net": weights})])()


def _many_tensors(rng: random.Random) -> bytes:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return with_header({f"w{n}": entry for n in range(rng.choice([19_000, 30_000, 600_000]))})


def _runs(rng: random.Random) -> bytes:
    """Code in each container."""
    value = rng.choice([Runs(), {"state_dict": state(), "epoch": Runs()}, [Runs()]])
    return rng.choice(
        [partial(pickle.dumps, value, protocol=p) for p in range(6)]
        + [lambda: saved(value), lambda: saved(value, legacy=True), lambda: script(Writes())]
        + [
            lambda: b"\x80\x02(X\x03\x00\x00\x00ranios\nmkdir\n.",
            lambda: b"\x80\x02cos\nmkdir\nX\x03\x00\x00\x00ran\x85R.",
        ]
    )()


def _whole_module(rng: random.Random) -> bytes:
    return saved(nn.Linear(3, 3), legacy=rng.random() < 0.5)


def _holds_itself(rng: random.Random) -> bytes:
    found: dict[str, Any] = {"epoch": 3}
    found[rng.choice(["model", "state_dict", "other"])] = found
    return saved(found)


def _noise(rng: random.Random) -> bytes:
    opening = rng.choice([b"", b"\x80\x02", b"\x80\x04", b"PK\x03\x04", b"\x1f\x8b", b"<!DOCTYPE html>", b"\x7fELF"])
    return opening + rng.randbytes(rng.choice([0, 1, 60, 5_000]))


FAMILIES: dict[str, Make] = {
    "a bytearray of 6 GB": _huge_bytearray,
    "a tensor of 6 GB in an archive": lambda rng: _archive_of(tensor_pickle(rng.randint(15, 100) * 10**8)),
    "a storage of 6 GB in an old pickle": lambda rng: saved({"w": torch.zeros(4)}, legacy=True).replace(
        b"X\x03\x00\x00\x00cpuq\x06K\x04",
        b"X\x03\x00\x00\x00cpuq\x06\x8a\x05" + (1_500_000_000).to_bytes(5, "little"),
    ),
    "a deflated bomb": _bomb,
    "entries over one another": _overlapping_entries,
    "a key of nested tuples": lambda rng: _nested_key(rng.choice([500, 200_000, 10**6])),
    "a key of doubled tuples": _doubled_tuples,
    "keys of one hash": _collisions,
    "long names": _long_names,
    "one tensor under many names": lambda rng: saved(
        {f"w{n}": v for v in [torch.zeros(10**6)] for n in range(20_000)}
    ),
    "tensors that are parts of one": _parts_of_one,
    "many tensors": _many_tensors,
    "a network of many layers": _deep_network,
    "a flipped bit": _flipped_body,
    "odd tensors": _odd_tensors,
    "odd types": _odd_types,
    "odd metadata": _odd_metadata,
    "a deep header": _deep_header,
    "code": _runs,
    "a pickled network": _whole_module,
    "a dictionary that holds itself": _holds_itself,
    "an old tar": _old_tar,
    "noise": _noise,
}


def mutated(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """The file with a few bytes flipped, put in, taken out, or taken from another file; or cut off."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        # The directories are at either end.
        place = rng.choice([rng.randrange(len(changed)), rng.randrange(200), len(changed) - 1 - rng.randrange(200)])
        place = min(max(place, 0), len(changed) - 1)
        length = rng.choice([1, 1, 2, 8, 300])
        match rng.choice(["flip", "flip", "insert", "delete", "truncate", "splice"]):
            case "flip":
                changed[place] ^= 1 << rng.randrange(8)
            case "insert":
                changed[place:place] = rng.randbytes(length)
            case "delete":
                del changed[place : place + length]
            case "truncate":
                del changed[max(place, 1) :]
            case "splice":
                begin = rng.randrange(len(other))
                changed[place : place + length] = other[begin : begin + length]
        if len(changed) < 2:
            break
    return bytes(changed)


def hostile(seed: int, each: int) -> Iterator[tuple[str, bytes]]:
    """(what it is, the file): `each` files of every family."""
    for family, make in FAMILIES.items():
        for number in range(each):
            yield f"{family}, {number}", make(random.Random(f"{seed} {family} {number}"))


def damaged(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """(what it is, the file): `count` mutations of honest files of every container in turn."""
    files = list(honest().items())
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        container, content = files[number % len(files)]
        yield f"{container}, mutation {number}", mutated(content, rng.choice(files)[1], rng)
