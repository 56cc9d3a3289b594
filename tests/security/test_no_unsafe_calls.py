"""Nothing in the package turns bytes from outside into code: a scan of every call and import."""

import ast

import pytest

# Where a file may use what is forbidden elsewhere, and why.
EXEMPT = {
    # Ray's own note of how its task failed, read from its session's folder on the machine that wrote it.
    ("search/progress.py", "cloudpickle"),
    # OME-XML; expat from 2.4.1 on does not write out entities that multiply (tests/security/test_hostile_images.py).
    ("data/streams/tiff_scale.py", "xml"),
}
MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "code", "xml", "pty"}
CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.full_load",
    "yaml.unsafe_load", "yaml.load_all", "tarfile.open", "shutil.unpack_archive", "pandas.read_pickle",
    "pd.read_pickle", "torch.load", "numpy.memmap", "mlflow.pyfunc.load_model",
    "keras.config.enable_unsafe_deserialization", "mlflow.pyfunc.get_model_dependencies",
}  # fmt: skip
METHODS = {"extractall", "unwrap_python_model"}
KEYWORDS = {("allow_pickle", True), ("shell", True), ("safe_mode", False), ("verify", False)}


def dotted(node):
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def imported(node):
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        return {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return set()


def unsafe(source):
    """Yield what a source does that it must not."""
    for node in ast.walk(ast.parse(source)):
        for name in imported(node):
            if set(name.split(".")) & MODULES or name in CALLS:
                yield next(iter(set(name.split(".")) & MODULES), name)
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in CALLS or name.rpartition(".")[2] in METHODS:
                yield name
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if value is not None and (keyword.arg, value) in KEYWORDS:
                    yield f"{keyword.arg}={value}"
            loads = name.endswith(("load_model", "deserialize_keras_object"))
            if loads and not any(one.arg == "safe_mode" for one in node.keywords):
                yield f"{name} without safe_mode"


def test_the_package_runs_nothing_that_it_reads(project):
    package = project / "platform" / "microseg"
    files = sorted(package.rglob("*.py"))
    found = {
        (file.relative_to(package).as_posix(), what)
        for file in files
        for what in unsafe(file.read_text(encoding="utf-8"))
    }
    assert len(files) > 250
    assert found == EXEMPT  # and an exemption that is no longer needed goes


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import pickle", "pickle"),
        ("from ray import cloudpickle", "cloudpickle"),
        ("from marshal import loads", "marshal"),
        ("import yaml\nyaml.load(text)", "yaml.load"),
        ("eval(text)", "eval"),
        ("numpy.load(file, allow_pickle=True)", "allow_pickle=True"),
        ("subprocess.run(text, shell=True)", "shell=True"),
        ("archive.extractall(folder)", "archive.extractall"),
        ("keras.saving.load_model(path)", "keras.saving.load_model without safe_mode"),
        ("deserialize_keras_object(facts)", "deserialize_keras_object without safe_mode"),
        ("keras.saving.load_model(path, safe_mode=False)", "safe_mode=False"),
        ("mlflow.pyfunc.load_model(uri, safe_mode=True)", "mlflow.pyfunc.load_model"),
        ("from mlflow.pyfunc import load_model", "mlflow.pyfunc.load_model"),
    ],
)
def test_the_scan_sees_what_it_looks_for(source, what):
    assert what in set(unsafe(source))


def test_what_this_package_starts_refuses_pickled_models(project):
    """The front that starts `mlflow models serve` tells it so, in the only place where it starts one."""
    front = project / "platform" / "microseg" / "serving" / "front"
    texts = [file.read_text(encoding="utf-8") for file in front.glob("*.py")]
    assert any('"models", "serve"' in text for text in texts)
    assert sum('"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"' in text for text in texts) == 1
