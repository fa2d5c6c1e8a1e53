"""Only lightlm/store writes to disk, and nothing runs or unpickles what it reads.

A module that fills a folder which the store hands it, or that must hand an open file to a child
process, is named in EXCUSED.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

EXCUSED: dict[str, str] = {
    "flows/cli/entry.py": "writes one line to standard error, from a signal handler",
    "flows/service/deployments.py": "hands Prefect's command its settings in a temporary folder",
    "lightlm/bases/folder.py": "writes a base into the folder that open_stage hands it",
    "lightlm/bases/gguf_file.py": "writes a base into the folder that open_stage hands it",
    "lightlm/bases/weights.py": "streams weights into the folder that open_stage hands it",
    "lightlm/model/adapters.py": "writes adapters into the folder that commit_folder hands it",
    "lightlm/versions/export.py": "writes an export's files into the folder that commit_folder "
    "hands it",
    "lightlm/versions/gguf_export.py": "writes an export's files into the folder that commit_folder "
    "hands it",
    "lightlm/versions/web_export.py": "writes a page and its libraries into folders that "
    "commit_folder and open_stage hand it",
    "flows/service/lifecycle.py": "opens the logs that the servers' own output goes to",
    "lightlm/data/building/tasks.py": "lists blocks in a temporary folder, which the store uploads",
    "lightlm/data/parts.py": "copies a part of a remote file into the folder that open_stage hands it",
    "lightlm/data/writing.py": "streams documents into the folder that open_stage hands it",
    "lightlm/data/tokenization/tokenizer.py": "writes the tokenizer's files into the folder that "
    "open_stage hands it",
    "lightlm/data/shards.py": "streams tokens into the folder that open_stage hands it",
    "lightlm/model/hugging_face.py": "writes the model's files into the folder that commit_folder "
    "hands it",
    "lightlm/ngram/mixture.py": "copies count tables into the folder that commit_folder hands it",
    "lightlm/studio/jobs.py": "opens the files that a command's own output goes to",
    "lightlm/studio/uploads.py": "streams an upload under a temporary name, which the store "
    "publishes",
    "lightlm/training/timing.py": "asks the kernel, in /proc, to count this process's peak of "
    "memory anew",
    "lightlm/child_process.py": "opens the log that a child process's own output goes to",
}
"""Module -> what it writes, and why that is safe. An entry that is not needed is an error."""

WRITING_METHODS = {"write_text", "write_bytes", "touch", "symlink_to", "hardlink_to"}
WRITING_CALLS = {
    "torch.save", "os.replace", "os.rename", "os.renames", "os.truncate", "os.write", "shutil.move",
    "shutil.copy", "shutil.copy2", "shutil.copyfile", "shutil.copytree", "shutil.rmtree",
    "numpy.save", "np.save", "json.dump", "yaml.dump", "yaml.safe_dump",
}  # fmt: skip
DANGEROUS_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load",
    "yaml.unsafe_load", "yaml.full_load", "subprocess.getoutput", "subprocess.getstatusoutput",
    "asyncio.create_subprocess_shell", "runpy.run_path", "runpy.run_module", "torch.hub.load", "torch.jit.load",
}  # fmt: skip
UNPICKLING_MODULES = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}


def list_modules() -> list[Path]:
    """Return every module outside the store."""
    modules = [path for room in ("flows", "lightlm") for path in (ROOT / room).rglob("*.py")]
    return sorted(path for path in modules if "store" not in path.relative_to(ROOT).parts)


def list_all_modules() -> list[Path]:
    """Return every module, the store's and the settings' too."""
    return sorted(
        path for room in ("flows", "lightlm", "params") for path in (ROOT / room).rglob("*.py")
    )


def find_mode(call: ast.Call, position: int) -> str:
    """Return the mode that an `open` call gives, or "r"."""
    given = [word.value for word in call.keywords if word.arg == "mode"]
    given += call.args[position : position + 1]
    mode = given[0] if given else ast.Constant("r")
    # A mode that is computed cannot be read here: it counts as writing.
    return str(mode.value) if isinstance(mode, ast.Constant) else "w"


def find_writes(tree: ast.AST) -> Iterator[str]:
    """Yield each call that writes, renames or deletes, with its line."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        method = name.rpartition(".")[2] if isinstance(call.func, ast.Attribute) else ""
        if name == "os.open" and ast.unparse(call.args[0]) == "os.devnull":
            continue
        position = 0 if method == "open" and name not in ("io.open", "os.open") else 1
        opens = name == "open" or method == "open"
        if (
            name in WRITING_CALLS
            or method in WRITING_METHODS
            or (opens and set(find_mode(call, position)) & set("wax+"))
        ):
            yield f"line {call.lineno}: {ast.unparse(call)[:80]}"


def find_dangers(tree: ast.AST) -> Iterator[str]:
    """Yield whatever runs text as code: eval, pickle, a shell, yaml.load, torch.load of objects."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules = {(node.module or "").partition(".")[0]}
        else:
            modules = set()
        imported = (
            {f"{node.module}.{alias.name}" for alias in node.names}
            if isinstance(node, ast.ImportFrom)
            else set()
        )
        if modules & UNPICKLING_MODULES or imported & DANGEROUS_CALLS:
            yield f"line {node.lineno}: {ast.unparse(node)}"  # type: ignore[attr-defined]
        if not isinstance(node, ast.Call):
            continue
        words = {word.arg: ast.unparse(word.value) for word in node.keywords}
        name = ast.unparse(node.func)
        if (
            name in DANGEROUS_CALLS
            or words.get("shell", "False") != "False"
            or words.get("trust_remote_code", "False") != "False"
            or words.get("allow_pickle", "False") != "False"
            or (name == "torch.load" and words.get("weights_only") != "True")
        ):
            yield f"line {node.lineno}: {ast.unparse(node)[:80]}"


@pytest.mark.parametrize("path", list_modules(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_module_outside_the_store_writes_no_file(path: Path) -> None:
    if path.relative_to(ROOT).as_posix() in EXCUSED:
        return
    assert list(find_writes(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize("path", list_all_modules(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_module_runs_no_text_as_code(path: Path) -> None:
    assert list(find_dangers(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_every_excused_module_does_write() -> None:
    idle = [n for n in EXCUSED if not list(find_writes(ast.parse((ROOT / n).read_text("utf-8"))))]
    assert idle == [], "take these off the list"


@pytest.mark.parametrize(
    "code",
    [
        "open(p, 'w')", "open(p, mode='ab')", "p.open('r+')", "open(p, m)", "p.write_text(t)",
        "p.write_bytes(b)", "torch.save(m, p)", "os.replace(a, b)", "shutil.move(a, b)",
    ],
)  # fmt: skip
def test_a_write_is_found(code: str) -> None:
    assert list(find_writes(ast.parse(code)))


@pytest.mark.parametrize("code", ["open(p)", "p.open('rb')", "t.replace(a, b)", "p.read_text()"])
def test_reading_is_no_write(code: str) -> None:
    assert list(find_writes(ast.parse(code))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from dill import "
                         "loads", "eval(t)", "exec(t)", "yaml.load(t)", "subprocess.getoutput(t)",
        "from os import system", "AutoModel.from_pretrained(p, trust_remote_code=True)",
        "subprocess.run(t, shell=True)", "torch.load(p)", "torch.load(p, weights_only=False)",
        "np.load(p, allow_pickle=True)",
    ],
)  # fmt: skip
def test_running_text_as_code_is_found(code: str) -> None:
    assert list(find_dangers(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    ["model.eval()", "re.compile(p)", "yaml.safe_load(t)", "torch.load(p, weights_only=True)"],
)
def test_harmless_calls_are_not_mistaken_for_running_text(code: str) -> None:
    assert list(find_dangers(ast.parse(code))) == []
