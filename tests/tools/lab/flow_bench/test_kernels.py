"""Loops found in a disassembly; compiling itself is tested with the kernels."""

from __future__ import annotations

from lab.flow_bench.kernels import Kernel, _loops, table

LISTING = """
.text.kernel:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_2:
        /*0010*/                   FADD R2, R2, R3 ;
.L_x_1:
        /*0020*/                   MUFU.SQRT R4, R2 ;
        /*0030*/              @!P0 FFMA.SAT R4, R2, R3, R4 ;
        /*0040*/               @P0 BRA `(.L_x_1) ;
        /*0050*/              @!P1 BRA `(.L_x_2) ;
.L_x_3:
        /*0060*/                   BRA `(.L_x_3);
"""


def test_the_innermost_loops_are_found_and_their_instructions_counted() -> None:
    names, loops = _loops(LISTING.splitlines())
    assert names == ["MOV", "FADD", "MUFU", "FFMA", "BRA", "BRA", "BRA"]
    assert [dict(loop) for loop in loops] == [{"MUFU": 1, "FFMA": 1, "BRA": 1}]


def test_the_table_says_what_a_thread_holds() -> None:
    kernel = Kernel("relax", {"PATCH": 4}, 6, 384, 256, 254, 16384, 0, 1928, {"FADD": 208, "MUFU": 64})
    assert table([kernel]).splitlines()[-1] == (
        "| relax, 4 x 4 pixels a thread | 6 | 384 | 256 | 254 | 16384 | 0 | 1928 | 272: 208 FADD, 64 MUFU |"
    )
