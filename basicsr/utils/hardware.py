"""The processor of this machine: its name, and the instructions that this project has a use for."""

import platform
from pathlib import Path

INFORMATION = Path("/proc/cpuinfo")
_SETS = {"AVX2": "avx2", "AVX-512": "avx512f", "VNNI": "avx512_vnni", "bfloat16": "avx512_bf16", "AMX": "amx_int8"}
"""Instruction sets by the names that people know, with the flag of a processor that has them."""


def processor_name(information: Path = INFORMATION) -> str:
    """Return what the processor calls itself, or where it does not, its architecture."""
    return _field("model name", information) or platform.processor() or platform.machine()


def processor_flags(information: Path = INFORMATION) -> frozenset[str]:
    """Return the flags that the kernel knows the instructions of the processor by; none where it does not tell."""
    return frozenset((_field("flags", information) or "").split())


def gains_from_bfloat16(information: Path = INFORMATION) -> bool:
    """Whether products in bfloat16 take less time than in float32: with AMX, and on AMD's processors with AVX-512's instruction for them.

    Intel's later Xeons have that instruction, too, at half the rate of float32: they leave products to AMX, which a virtual machine may hide.
    """
    flags = processor_flags(information)
    return "amx_bf16" in flags or ("avx512_bf16" in flags and _field("vendor_id", information) == "AuthenticAMD")


def processor(information: Path = INFORMATION) -> str:
    """Return one line for a reader of results: `AMD EPYC 9R14, AVX2, AVX-512, VNNI, bfloat16`. Many processors have no other name than their family's."""
    flags = processor_flags(information)
    return ", ".join([processor_name(information), *(name for name, flag in _SETS.items() if flag in flags)])


def _field(name: str, information: Path) -> str | None:
    """Return a field of the first core."""
    if not information.is_file():
        return None
    for line in information.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None
