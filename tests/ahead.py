"""Compiles kernels for GPUs that are not there, and reads what the assembler says of them."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024}
"""Bytes of shared memory that one block may have."""


@dataclass(frozen=True)
class Report:
    shared: int
    registers: int
    spilled: int
    """Bytes of registers stored to local memory."""
    ptx: str


def compile_for(
    architecture: int, kernel: Any, types: dict[str, str], constants: dict[str, Any], *, warps: int, stages: int
) -> Report:
    """Compiles a kernel with pointers and counts aligned to 16, as tensors of whole rows are."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(names)
        if signature[name] != "constexpr"
        and (signature[name].startswith("*") or name.startswith("stride") or name in ("B", "D", "Dt", "Ds", "G", "W", "Wt", "width", "capacity"))
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    target = GPUTarget("cuda", architecture, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": warps, "num_stages": stages})
    assembler = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    name = f"sm_{architecture}" + ("a" if architecture == 90 else "")
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(compiled.asm["ptx"])
        file.flush()
        command = [str(assembler), "-v", f"--gpu-name={name}", file.name, "-o", "/dev/null"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers, spilled = re.search(r"Used (\d+) registers", said), re.search(r"(\d+) bytes spill stores", said)
    assert registers and spilled, said
    return Report(compiled.metadata.shared, int(registers[1]), int(spilled[1]), compiled.asm["ptx"])
