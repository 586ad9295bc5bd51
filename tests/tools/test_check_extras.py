"""Each extra beside the oldest and the newest TensorFlow: what is asked, and what is said."""

import pytest

from tools import check_extras

TABLE = check_extras.project()
EXTRAS = set(TABLE["optional-dependencies"]) - set(check_extras.DISTRIBUTIONS)


@pytest.fixture
def asked(monkeypatch):
    """What pip was asked for; it cannot have ray."""
    found = []

    def answer(requirements):
        found.append(requirements)
        if any("ray" in each for each in requirements):
            return {}, "ERROR: ray 2 depends on protobuf<3"
        return {"keras": "3.15.1", "apache-beam": "2.77.0", "protobuf": "6.33.6"}, None

    monkeypatch.setattr(check_extras, "resolved", answer)
    monkeypatch.setattr(check_extras, "installed", answer)
    return found


def test_the_ends_are_those_of_the_project():
    assert check_extras.ends_of("tensorflow-cpu>=2.18,<2.22") == ["2.18.*", "2.21.*"]
    assert check_extras.ends_of(TABLE["optional-dependencies"]["tensorflow-cpu"][0])
    assert set(check_extras.EXCEPTIONS) <= EXTRAS


@pytest.mark.parametrize("options", [[], ["--install"]])
def test_what_fits_is_listed_with_its_versions(asked, options, capsys):
    assert check_extras.main(["beam", "--tensorflow", "2.18.*", "2.21.*", *options]) == 0
    assert asked == [
        [
            *TABLE["dependencies"],
            f"tensorflow-cpu=={version}",
            *TABLE["optional-dependencies"]["beam"],
        ]
        for version in ("2.18.*", "2.21.*")
    ]
    first, second = capsys.readouterr().out.splitlines()
    line = "fits: keras 3.15.1, protobuf 6.33.6, apache-beam 2.77.0 (0 s)"
    assert first == f"beam, tensorflow-cpu 2.18.*: {line}"
    assert second == f"beam, tensorflow-cpu 2.21.*: {line}"


def test_what_does_not_fit_fails(asked, capsys):
    assert check_extras.main(["ray", "beam"]) == 1
    printed = capsys.readouterr().out
    assert printed.count("does not fit:\nERROR: ray 2 depends on protobuf<3") == 2
    assert printed.count("beam, tensorflow-cpu") == 2


def test_all_are_looked_at_but_the_exceptions(asked, capsys):
    check_extras.main([])
    left_out = set(check_extras.EXCEPTIONS)
    assert len(asked) == 2 * len(EXTRAS - left_out)
    printed = capsys.readouterr().out
    assert [f"{extra}: left out: " in printed for extra in left_out] == [True] * len(left_out)


def test_an_unknown_extra_is_refused(asked, capsys):
    with pytest.raises(SystemExit):
        check_extras.main(["beams"])
    assert "no such extra: beams. There are: beam, " in capsys.readouterr().err
    assert asked == []


@pytest.mark.parametrize("extra", ["ray", "beam"])
def test_requirements_name_distributions(extra):
    names = {"ray": ["ray"], "beam": ["apache-beam"]}
    assert check_extras.names_of(TABLE["optional-dependencies"][extra]) == names[extra]


def test_pip_says_why_it_failed(tmp_path):
    missing = f"keras-kd-test @ {(tmp_path / 'none-1-py3-none-any.whl').as_uri()}"
    chosen, why_not = check_extras.resolved([missing])
    assert chosen == {}
    assert "none-1-py3-none-any.whl" in why_not
