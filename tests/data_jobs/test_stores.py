"""Sources behind s3://, from a server that speaks S3 on this machine, and stores out of reach."""

from __future__ import annotations

import gzip
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_jobs.read import stores
from data_jobs.read.places import Place
from mutirao.core.errors import DataError, EnvironmentProblem, RecipeError
from mutirao.core.schemas import read_ipc

BUCKET = "corpus"


@pytest.fixture(scope="module")
def server():
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    yield "{}:{}".format(*running.get_host_and_port())
    running.stop()


@pytest.fixture
def bucket(server, monkeypatch):
    """put(name, bytes) into an S3 bucket that the environment leads to."""
    names = {"ENDPOINT_URL": f"http://{server}", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}
    for name, value in names.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    stores._amazon.cache_clear()
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)

    def put(name: str, data: bytes) -> None:
        client.put_object(Bucket=BUCKET, Key=name, Body=data)

    put.delete = lambda name: client.delete_object(Bucket=BUCKET, Key=name)
    yield put
    stores._amazon.cache_clear()


def test_a_bucket_is_read_as_a_folder_is(stages, helpers, bucket, tmp_path):
    """JSONL, gzip and Parquet, by name and by pattern: the same files and the same documents."""
    rows = [{"id": k, "text": helpers.sentence(k)} for k in range(12)]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows[8:]), sink)
    files: ClassVar[dict[str, bytes]] = {
        "in/a.jsonl": helpers.jsonl(rows[:4]),
        "in/deep/b.jsonl.gz": gzip.compress(helpers.jsonl(rows[4:8]), mtime=0),
        "t.parquet": sink.getvalue(),
    }
    for name, data in files.items():
        bucket(name, data)
    paths = ("in/**/*.jsonl*", "t.parquet")
    found = {}
    for base in (f"s3://{BUCKET}", str(tmp_path)):
        sources = [{"path": f"{base}/{path}", "name": f"s{k}"} for k, path in enumerate(paths)]
        found[base] = stages(files, sources=sources, until="clean")
        (tmp_path / "store").rename(tmp_path / f"store{len(found)}")
    ingested = [done["ingest"].content for done in found.values()]
    assert ingested[0]["counts"]["files"] == 3 and ingested[0] == ingested[1]
    assert found[f"s3://{BUCKET}"]["clean"].content == found[str(tmp_path)]["clean"].content


def test_hidden_folders_of_a_bucket_are_left_out(bucket):
    for name in ("seen/.git/a.txt", "seen/b.txt", "seen/.c.txt"):
        bucket(name, b"x")
    assert stores.found_at(f"s3://{BUCKET}/seen")[1] == [f"s3://{BUCKET}/seen/b.txt"]


def test_a_run_reads_a_bucket(helpers, bucket, tmp_path):
    from mutirao.core.progress import Progress
    from mutirao.core.recipe_file import load_recipe
    from mutirao.core.workdir import Workdir
    from mutirao.run.execute import Options, execute

    bucket("run/a.jsonl", helpers.jsonl({"text": helpers.sentence(k)} for k in range(5)))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"format: 1\nname: remote\nsources:\n  - path: s3://{BUCKET}/run\n")
    loaded = load_recipe(str(recipe))
    options = Options(until="clean", use_ray=False)
    run = execute(loaded, Workdir(tmp_path / "work"), options, Progress(quiet=True))
    assert run.stages["clean"]


class Hub(BaseHTTPRequestHandler):
    """What the Hugging Face hub answers for the public dataset own/set."""

    files: ClassVar[dict[str, bytes]] = {
        "README.md": b"# card",
        "data/a.jsonl": b'{"text": "um texto"}\n',
        "data/state.json": b"{}",
        "deep/b.txt": b"outro texto",
    }

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/api/datasets/own/set":
            self.answer(json.dumps({"id": "own/set", "sha": "c0ffee"}).encode())
        elif path == "/api/datasets/own/set/tree/main":
            rows = [
                {"type": "file", "path": name, "size": len(data), "oid": f"o{len(data)}"}
                for name, data in self.files.items()
            ]
            folders = [{"type": "directory", "path": p, "oid": "d"} for p in ("data", "deep")]
            self.answer(json.dumps(rows + folders).encode())
        elif path.startswith("/datasets/own/set/resolve/main/"):
            self.answer(self.files[path.removeprefix("/datasets/own/set/resolve/main/")], 206)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()

    def answer(self, data: bytes, status: int = 200):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(monkeypatch):
    from huggingface_hub import HfFileSystem, constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    running = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    system = HfFileSystem(endpoint=f"http://127.0.0.1:{running.server_port}", token=False)
    monkeypatch.setattr(stores, "_hub", lambda: system)
    stores._hub_filesystem.cache_clear()
    yield
    stores._hub_filesystem.cache_clear()
    running.shutdown()


def test_a_dataset_of_the_hub_is_read(stages, hub):
    done = stages(sources=[{"path": "hf://datasets/own/set", "name": "hub"}], until="clean")
    assert done["ingest"].counts["files"] == 2
    assert done["ingest"].counts["skipped_files"] == {"hub": 2}
    paths = done["clean"].paths("text-")
    assert [read_ipc(p)["text"][0].as_py() for p in paths] == ["um texto", "outro texto"]


def test_a_dataset_that_is_not_there_names_the_token(stages, hub):
    for path in ("own/none", "own/set/*.parquet"):
        with pytest.raises(RecipeError, match="HF_TOKEN"):
            stages(sources=[{"path": f"hf://datasets/{path}"}], until="ingest")


def test_what_is_missing_is_named(stages, bucket):
    for path, code in ((f"s3://{BUCKET}/none.txt", "no-source"), ("s3://other/a.txt", "no-bucket")):
        with pytest.raises(RecipeError) as caught:
            stages(sources=[{"path": path}], until="ingest")
        assert caught.value.code == code and path in str(caught.value)
    with pytest.raises(RecipeError, match="Unknown kind of URL ftp://"):
        stages(sources=[{"path": "ftp://host/a.txt"}], until="ingest")


def test_a_file_that_vanishes_is_one_error(helpers, bucket, tmp_path):
    bucket("gone.txt", helpers.sentence(1).encode())
    bucket("stays.txt", helpers.sentence(2).encode())
    recipe = helpers.Recipe(sources=[{"path": f"s3://{BUCKET}/*.txt"}])
    done = helpers.run_stages(tmp_path, recipe, "ingest")
    bucket.delete("gone.txt")
    from data_jobs.clean import run

    with pytest.raises(DataError, match=r"has changed since.*\n|gone\.txt"):
        run(helpers.make_job(tmp_path, "clean", recipe, done))


def test_a_store_that_cannot_be_reached_stops_soon(monkeypatch, stages):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens on discard
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "yes")
    stores._amazon.cache_clear()
    with pytest.raises(EnvironmentProblem) as caught:
        stages(sources=[{"path": "s3://corpus/a.txt"}], until="ingest")
    stores._amazon.cache_clear()
    assert (caught.value.code, caught.value.exit_code) == ("no-network", 4)


def test_a_network_that_fails_is_no_damaged_file(bucket, monkeypatch):
    """Half a file must never become a document because a connection broke."""
    bucket("long.jsonl", b'{"text": "a"}\n' * 10)
    file = Place(f"s3://{BUCKET}/long.jsonl").open()

    def broken(size):
        raise OSError("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 56")

    monkeypatch.setattr(file.raw, "_file", type("File", (), {"read": staticmethod(broken)}))
    with pytest.raises(EnvironmentProblem, match="Cannot reach"):
        file.read()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError("AWS Error ACCESS_DENIED during HeadObject operation"), "no-credentials"),
        (OSError("google::cloud::Status(PERMISSION_DENIED: no)"), "no-credentials"),
        (OSError("AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation"), "no-bucket"),
        (OSError("AWS Error SLOW_DOWN during GetObject operation"), "store-failed"),
        (PermissionError("gated repo"), "no-credentials"),
        (ValueError("a page of the file is damaged"), None),
        (FileNotFoundError("no such object"), None),
    ],
)
def test_errors_of_stores_and_of_files_are_told_apart(error, code):
    found = stores.problem("hf://datasets/a/b", error)
    assert (found and found.code) == code


def test_patterns_match_as_glob_does():
    keys = ["d/a.txt", "d/x/b.txt", "d/x/y/c.txt", "d/x/y/c.csv"]
    found = {}
    for pattern in ("*.txt", "*/*.txt", "**/*.txt", "x/**", "**/y/c.*"):
        found[pattern] = [k[2:] for k in keys if stores._fits(k, "d", pattern.split("/"))]
    assert found == {
        "*.txt": ["a.txt"],
        "*/*.txt": ["x/b.txt"],
        "**/*.txt": ["a.txt", "x/b.txt", "x/y/c.txt"],
        "x/**": ["x/b.txt", "x/y/c.txt", "x/y/c.csv"],
        "**/y/c.*": ["x/y/c.txt", "x/y/c.csv"],
    }
