"""Checks a commit's message: one subject of at most 72 characters, then a blank line.

    python3 tools/check_commit_message.py .git/COMMIT_EDITMSG

Git runs it as its commit-msg hook; `make hooks` installs that.
"""

import pathlib
import re
import sys

LONGEST = 72
# What `git rebase --autosquash` looks for, and takes away.
AUTOSQUASH = re.compile(r"^((fixup|squash|amend)! )+")
# Where `git commit --verbose` begins to show the change.
SCISSORS = re.compile(r"^# -+ >8 -+$", re.MULTILINE)


def lines_of(text):
    """The lines that git keeps of a message: no comments, no blank lines at the top."""
    text = SCISSORS.split(text)[0]
    lines = [line.rstrip() for line in text.splitlines() if not line.startswith("#")]
    while lines and not lines[0]:
        lines.pop(0)
    return lines


def faults(text):
    """What is wrong with a message: sentences, none where it is fine."""
    lines = lines_of(text)
    if not lines:
        return ["The message is empty: say in one line what the commit does."]
    subject, found = AUTOSQUASH.sub("", lines[0]), []
    if len(subject) > LONGEST:
        found.append(
            f"The subject has {len(subject)} characters, at most {LONGEST} are shown by most "
            "programs: shorten it, and say the rest below a blank line."
        )
    if subject.endswith("."):
        found.append("The subject ends with a period: leave it out.")
    if ";" in subject:
        found.append("The subject joins several with ';': make a commit of each.")
    if len(lines) > 1 and lines[1]:
        found.append("The second line is not blank: git takes it for a part of the subject.")
    return found


def main():
    """Checks the file on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python3 tools/check_commit_message.py FILE")
    text = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")
    found = faults(text)
    if found:
        sys.exit("\n".join([*(lines_of(text)[:1]), *found]))


if __name__ == "__main__":
    main()
