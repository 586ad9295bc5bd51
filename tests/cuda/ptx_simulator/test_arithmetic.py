"""Arithmetic against NumPy, one value a thread."""

import numpy as np
import pytest

from .snippets import each

TINY = np.float32(1e-40)  # subnormal
SPECIAL = np.array([0.0, -0.0, 1.0, -2.5, np.inf, -np.inf, np.nan, 3e38], np.float32)
A = np.repeat(SPECIAL, len(SPECIAL))
B = np.tile(SPECIAL, len(SPECIAL))


def random_floats(count=256, seed=0):
    random = np.random.default_rng(seed)
    return (random.normal(size=count) * 2.0 ** random.integers(-20, 20, count)).astype(np.float32)


def same(actual, expected):
    """Equal, zeros with their signs, NaN where NaN."""
    np.testing.assert_array_equal(actual, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(actual[numbers]), np.signbit(expected[numbers]))


@pytest.mark.parametrize(
    ("name", "function"),
    [("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("div.rn", np.divide)],
)
def test_two_operands(name, function):
    a, b = np.concatenate([A, random_floats()]), np.concatenate([B, random_floats(seed=1)])
    with np.errstate(all="ignore"):
        expected = function(a, b)
    same(each(f"{name}.f32 {{d}}, {{a}}, {{b}};", a, b, out="f4"), expected)


def test_ftz_flushes_inputs_and_outputs():
    a = np.array([TINY, -TINY, 2.0**-100, -(2.0**-100), 1.0], np.float32)
    b = np.array([2.0**60, 2.0**60, 2.0**-40, 2.0**-40, 2.0], np.float32)
    flushed = each("mul.ftz.f32 {d}, {a}, {b};", a, b, out="f4")
    same(flushed, np.array([0.0, -0.0, 0.0, -0.0, 2.0], np.float32))
    same(each("mul.f32 {d}, {a}, {b};", a, b, out="f4"), a * b)


def test_ftz_does_not_flush_what_only_moves():
    a = np.array([TINY, -TINY, 1.0], np.float32)
    same(each("mov.f32 %f1, {a}; mov.f32 {d}, %f1;", a, out="f4"), a)


def test_ftz_of_a_copied_register():
    # The copy must not be taken for the output of an instruction that flushes.
    a = np.array([TINY, 1.0], np.float32)
    code = "add.ftz.f32 %f1, {a}, {a}; mov.f32 %f1, {a}; mul.ftz.f32 {d}, %f1, 0f7E800000;"
    same(each(code, a, out="f4"), np.array([0.0, 2.0**126], np.float32))


def test_fma_rounds_once():
    a, b = random_floats(), random_floats(seed=1)
    c = -(a * b)  # what remains is the rounding error of the product
    with np.errstate(all="ignore"):
        exact = (a.astype("f8") * b.astype("f8") + c.astype("f8")).astype("f4")
    assert np.any(exact != 0)
    same(each("fma.rn.f32 {d}, {a}, {b}, {c};", a, b, c, out="f4"), exact)


def test_fma_of_float64_is_refused():
    with pytest.raises(NotImplementedError, match=r"fma\.rn\.f64"):
        each("fma.rn.f64 {d}, {a}, {a}, {a};", np.ones(1), out="f8")


@pytest.mark.parametrize("name", ["max", "min"])
def test_extremes_lose_nan_and_order_zeros(name):
    function = {"max": np.fmax, "min": np.fmin}[name]
    result = each(f"{name}.f32 {{d}}, {{a}}, {{b}};", A, B, out="f4")
    np.testing.assert_array_equal(result, function(A, B))
    zeros = (A == 0) & (B == 0)
    negative = (np.signbit(A) & np.signbit(B)) if name == "max" else np.signbit(A) | np.signbit(B)
    np.testing.assert_array_equal(np.signbit(result[zeros]), negative[zeros])


def test_extremes_that_keep_nan():
    result = each("max.NaN.f32 {d}, {a}, {b};", A, B, out="f4")
    np.testing.assert_array_equal(result, np.maximum(A, B))


def test_sign_and_saturation():
    same(each("neg.f32 {d}, {a};", SPECIAL, out="f4"), -SPECIAL)
    same(each("abs.f32 {d}, {a};", SPECIAL, out="f4"), np.abs(SPECIAL))
    clamped = each("add.sat.f32 {d}, {a}, 0f00000000;", SPECIAL, out="f4")
    np.testing.assert_array_equal(clamped, [0, 0, 1, 0, 1, 0, 0, 1])


COMPARISONS = {
    "eq": (np.equal, False),
    "ne": (np.not_equal, False),
    "lt": (np.less, False),
    "le": (np.less_equal, False),
    "gt": (np.greater, False),
    "ge": (np.greater_equal, False),
}


@pytest.mark.parametrize("name", [n + u for n in COMPARISONS for u in ("", "u")])
def test_comparisons_with_nan(name):
    function = COMPARISONS[name[:2]][0]
    unordered = np.isnan(A) | np.isnan(B)
    expected = np.where(unordered, name.endswith("u"), function(A, B))
    code = f"setp.{name}.f32 %p1, {{a}}, {{b}}; selp.u32 {{d}}, 1, 0, %p1;"
    np.testing.assert_array_equal(each(code, A, B, out="u4"), expected)


def test_num_and_nan():
    for name, expected in (
        ("num", ~(np.isnan(A) | np.isnan(B))),
        ("nan", np.isnan(A) | np.isnan(B)),
    ):
        code = f"setp.{name}.f32 %p1, {{a}}, {{b}}; selp.u32 {{d}}, 1, 0, %p1;"
        np.testing.assert_array_equal(each(code, A, B, out="u4"), expected)


def test_combined_predicates():
    a = np.arange(8, dtype=np.int32)
    code = """
        setp.gt.s32 %p1, {a}, 5;
        setp.lt.or.s32 %p2|%p3, {a}, 2, %p1;
        setp.lt.and.s32 %p4, {a}, 7, !%p1;
        not.pred %p5, %p3; xor.pred %p6, %p5, %p4; and.pred %p7, %p6, %p2;
        selp.u32 %r2, 1, 0, %p2; selp.u32 %r3, 2, 0, %p3;
        selp.u32 %r4, 4, 0, %p4; selp.u32 %r5, 8, 0, %p7;
        or.b32 %r2, %r2, %r3; or.b32 %r4, %r4, %r5; or.b32 {d}, %r2, %r4;
    """
    above = a > 5
    p2, p3, p4 = (a < 2) | above, ~(a < 2) | above, (a < 7) & ~above
    expected = p2 + 2 * p3 + 4 * p4 + 8 * (p2 & (~p3 ^ p4))
    np.testing.assert_array_equal(each(code, a, out="u4"), expected)


APPROXIMATE = {
    "ex2.approx.ftz": np.exp2,
    "lg2.approx.ftz": np.log2,
    "rcp.approx.ftz": np.reciprocal,
    "sqrt.approx.ftz": np.sqrt,
    "rsqrt.approx.ftz": lambda x: 1 / np.sqrt(x),
}


@pytest.mark.parametrize("name", APPROXIMATE)
def test_special_functions(name):
    x = np.linspace(0.01, 90, 300, dtype=np.float32)
    exact = APPROXIMATE[name](x.astype("f8"))
    quiet = each(f"{name}.f32 {{d}}, {{a}};", x, out="f4")
    ulp = np.spacing(exact.astype("f4"))
    assert np.max(np.abs(quiet - exact) / ulp) < 0.51
    noisy = each(f"{name}.f32 {{d}}, {{a}};", x, out="f4", noise_ulp=2)
    error = np.max(np.abs(noisy.astype("f8") - exact) / ulp)
    # Below a power of two an ulp is half as large, above it twice.
    assert 1.5 < error < 4.6
    assert len(np.unique(noisy.view("i4") - quiet.view("i4"))) == 5


def test_noise_leaves_special_values():
    x = np.array([-np.inf, np.inf, np.nan, 0.0, -0.0, -200.0], np.float32)
    for seed in range(5):
        result = each("ex2.approx.ftz.f32 {d}, {a};", x, out="f4", noise_ulp=2, seed=seed)
        same(result, np.array([0, np.inf, np.nan, 1, 1, 0], np.float32))


def test_noise_is_of_its_seed_and_spares_rounded_instructions():
    x = random_floats()
    code = "ex2.approx.f32 %f1, {a}; add.f32 {d}, %f1, {a};"
    first, again, other = (each(code, x, out="f4", noise_ulp=2, seed=s) for s in (1, 1, 2))
    same(first, again)
    assert np.any(first[np.isfinite(first)] != other[np.isfinite(first)])
    with np.errstate(all="ignore"):
        same(each("rcp.rn.f32 {d}, {a};", x, out="f4", noise_ulp=2), np.float32(1) / x)


def test_approximate_division():
    a = np.array([3.0, 3.0, np.inf], np.float32)
    b = np.array([7.0, 2.0**127, 2.0**127], np.float32)
    same(each("div.full.f32 {d}, {a}, {b};", a, b, out="f4"), a / b)
    expected = np.array([a[0] / b[0], 0.0, np.nan], np.float32)
    same(each("div.approx.f32 {d}, {a}, {b};", a, b, out="f4"), expected)


def test_float64():
    x = np.array([1.5, -2.0, 1e300])
    np.testing.assert_array_equal(each("mul.f64 {d}, {a}, 0d4000000000000000;", x, out="f8"), x * 2)
