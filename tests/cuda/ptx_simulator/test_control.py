"""Divergence, reconvergence, guards, scopes, and refusals."""

import numpy as np
import pytest

from . import Fault, load
from .snippets import HEADER, REGISTERS, each, kernel, run

VALUES = np.arange(96, dtype=np.int32)


def test_branches_that_part_threads():
    code = """
        and.b32 %r5, {a}, 1; setp.eq.s32 %p1, %r5, 0; @%p1 bra EVEN;
        mul.lo.s32 {d}, {a}, 3; bra.uni END;
        EVEN: setp.gt.s32 %p2, {a}, 50; @!%p2 bra SMALL;
        neg.s32 {d}, {a}; bra.uni END;
        SMALL: mov.u32 {d}, 7;
        END:
    """
    expected = np.where(VALUES % 2, VALUES * 3, np.where(VALUES > 50, -VALUES, 7))
    np.testing.assert_array_equal(each(code, VALUES, out="i4"), expected)


def test_loops_of_different_length_meet_again():
    code = """
        mov.u32 {d}, 0; mov.u32 %r5, 0;
        LOOP: setp.ge.s32 %p1, %r5, {a}; @%p1 bra END;
        add.s32 {d}, {d}, %r5; add.s32 %r5, %r5, 1; bra LOOP;
        END: shfl.sync.idx.b32 %r6, %r5, 31, 31, -1; add.s32 {d}, {d}, %r6;
    """
    expected = VALUES * (VALUES - 1) // 2 + VALUES // 32 * 32 + 31
    np.testing.assert_array_equal(each(code, VALUES, out="i4"), expected)


def test_registers_survive_a_branch_taken_by_others():
    code = """
        add.s32 %r5, {a}, 1; setp.lt.s32 %p1, {a}, 48; @%p1 bra NEXT;
        mov.u32 %r5, 0; add.s32 %r6, {a}, 5; add.s32 %r5, %r5, %r6;
        NEXT: mov.u32 {d}, %r5;
    """
    expected = np.where(VALUES < 48, VALUES + 1, VALUES + 5)
    np.testing.assert_array_equal(each(code, VALUES, out="i4"), expected)


def test_guards():
    code = """
        setp.gt.s32 %p1, {a}, 10; mov.u32 {d}, 1;
        @%p1 mov.u32 {d}, 2; @!%p1 add.s32 {d}, {d}, {a};
    """
    np.testing.assert_array_equal(
        each(code, VALUES, out="i4"), np.where(VALUES > 10, 2, 1 + VALUES)
    )


def test_guarded_memory_touches_nothing_else():
    body = "setp.eq.u32 %p1, %r1, 0; add.s64 %rd11, %rd1, %rd10;"
    body += "@%p1 ld.global.u32 %r2, [%rd11]; @%p1 st.global.u32 [%rd11], 9;"
    assert run(body, np.array([5], np.uint32))[0][0] == 9


def test_a_block_that_is_not_whole_warps():
    np.testing.assert_array_equal(each("add.s32 {d}, {a}, 1;", VALUES[:40], out="i4"), VALUES[1:41])


def test_special_registers():
    body = """
        mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mad.lo.u32 %r4, %r2, %r3, %r1;
        mul.wide.u32 %rd11, %r4, 4; add.s64 %rd11, %rd1, %rd11;
        mov.u32 %r5, %nctaid.x; mov.u32 %r6, %laneid; mad.lo.u32 %r7, %r5, 100, %r6;
        st.global.u32 [%rd11], %r7;
    """
    result = run(body, np.zeros(192, np.uint32), grid=3, block=64)[0]
    np.testing.assert_array_equal(result, 300 + np.arange(192) % 32)


def test_scopes_of_inline_assembly():
    code = """
        {{ .reg .b32 t; add.s32 t, {a}, 1; mov.b32 %r5, t; }}
        {{.reg .b32 t;
          {{ .reg .b32 t; mov.b32 t, 100; }}
          add.s32 t, %r5, %r5; mov.b32 {d}, t;}}
    """
    np.testing.assert_array_equal(each(code, VALUES, out="i4"), 2 * (VALUES + 1))


@pytest.mark.parametrize(
    "instruction",
    [
        "frobnicate.u32 %r2, %r3;",
        "atom.global.add.u32 %r2, [%rd1], 1;",
        "add.rz.f32 %f1, %f2, %f3;",
        "add.cc.u32 %r2, %r3, %r4;",
        "ld.local.u32 %r2, [%rd1];",
        "ld.u32 %r2, [%rd1];",
        "mov.u32 %r2, %clock;",
        "mov.u32 %r2, elsewhere;",
        "bar.sync 0, 64;",
        "bar.arrive 0, 64;",
        "membar.gl;",
        "call.uni function;",
        "cvt.rz.f16.f32 %h1, %f1;",
        ".local .align 4 .b8 depot[16];",
    ],
)
def test_what_is_not_known_is_refused_before_anything_runs(instruction):
    data = np.zeros(32, np.uint32)
    # It lies where no thread comes, and behind a store that must not happen.
    body = f"add.s64 %rd11, %rd1, %rd10; st.global.u32 [%rd11], 1; ret; {instruction}"
    name = instruction.split()[0].rstrip(";")
    with pytest.raises(NotImplementedError, match=rf"PTX line \d+: {name}"):
        run(body, data)


def test_a_loop_without_end(monkeypatch):
    monkeypatch.setattr("tests.cuda.ptx_simulator.launch.MOST_STEPS", 100)
    with pytest.raises(Fault, match="does not end"):
        run("LOOP: bra LOOP;", np.zeros(1))


def test_modules_with_several_kernels_and_comments():
    entry = "// a {{ comment\n.entry {}(.param .u32 x) /* }} */ .maxntid 64, 1, 1 {{ {} ret; }}\n"
    module = load(HEADER + entry.format("one", REGISTERS) + entry.format("two", "frob.u32;"))
    assert list(module) == ["one", "two"]
    assert [each.name for each in module["one"].code] == ["ret"]
    assert module["one"].registers["%f31"] == "f32"
    assert module["one"].program
    with pytest.raises(NotImplementedError, match=r"frob\.u32"):
        assert module["two"].program


def test_line_numbers_are_those_of_the_file():
    text = (
        HEADER + "\n.entry one()\n{\n  /* two\n lines */ .reg .b32 %r<2>;\n  mov.u32 %r0, 1;\nret;}"
    )
    first = load(text)["one"].code[0]
    assert text.split("\n")[first.line - 1].strip() == first.text + ";"


def test_static_shared_is_not_dynamic():
    compiled = kernel("", declarations=".shared .align 8 .b8 a[12]; .shared .f32 b;")
    assert [each.size for each in compiled.static_shared.values()] == [12, 4]
    assert list(compiled.dynamic_shared) == ["dynamic"]
