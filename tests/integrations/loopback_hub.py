"""A Hub on the loopback, as far as huggingface_hub asks one for models: repositories, commits, LFS, downloads."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import threading
from contextlib import contextmanager


class Hub(http.server.ThreadingHTTPServer):
    """Repositories in memory; ``changed(repo_id, name, content)`` puts a file into the newest commit."""

    daemon_threads = True
    token = "a-token"

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.commits = {}  # repo_id -> [(hash, {name: content})]
        self.private = {}
        self.objects = {}  # SHA-256 -> content
        self.fetched = []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, repo_id, files):
        found = hashlib.sha1(repr((len(self.commits[repo_id]), sorted(files.items()))).encode()).hexdigest()
        self.commits[repo_id].append((found, files))
        return found

    def changed(self, repo_id, name, content):
        return self.commit(repo_id, {**self.commits[repo_id][-1][1], name: content})

    def at(self, repo_id, revision):
        found = self.commits.get(repo_id, [])
        if revision == "main" and found:
            return found[-1]
        return next((each for each in found if each[0] == revision), None)


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.body()
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self.give({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            return self.create(json.loads(body))
        if self.path == "/api/validate-yaml":
            return self.give({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", self.path):
            asked = json.loads(body)["files"]
            modes = {True: "lfs", False: "regular"}
            return self.give({
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": modes[file["path"].endswith(".safetensors")],
                        "shouldIgnore": False,
                    }
                    for file in asked
                ]
            })
        if re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self.path):
            return self.give({
                "transfer": "basic",
                "objects": [
                    {**each, "actions": {"upload": {"href": f"{self.server.address}/put/{each['oid']}"}}}
                    for each in json.loads(body)["objects"]
                ],
            })
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path):
            return self.take(found[1], [json.loads(line) for line in body.splitlines()])
        return self.give({"error": f"POST {self.path}"}, 500)

    def create(self, asked):
        repo_id = f"{asked['organization']}/{asked['name']}"
        if repo_id in self.server.commits:
            return self.give({"error": "exists", "url": f"{self.server.address}/{repo_id}"}, 409)
        self.server.commits[repo_id] = []
        self.server.private[repo_id] = asked.get("private", asked.get("visibility") == "private")
        self.server.commit(repo_id, {".gitattributes": b"*.safetensors filter=lfs\n"})
        return self.give({"url": f"{self.server.address}/{repo_id}", "name": repo_id, "id": repo_id})

    def take(self, repo_id, lines):
        files = dict(self.server.commits[repo_id][-1][1])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        found = self.server.commit(repo_id, files)
        url = f"{self.server.address}/{repo_id}/commit/{found}"
        return self.give({"commitUrl": url, "commitOid": found, "success": True})

    def do_PUT(self):
        content = self.body()
        digest = self.path.rpartition("/")[2]
        if hashlib.sha256(content).hexdigest() != digest:
            return self.give({"error": "another hash"}, 400)
        self.server.objects[digest] = content
        return self.give({})

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            if (commit := self.known(found[1], found[2] or "main")) is not None:
                siblings = [{"rfilename": name} for name in commit[1]]
                self.give({"id": found[1], "sha": commit[0], "siblings": siblings})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            if (commit := self.known(found[1], found[2])) is not None:
                self.give([self.listed(name, content) for name, content in commit[1].items()])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if (commit := self.known(found[1], found[2])) is not None:
                self.file(commit, found[3])
        else:
            self.give({"error": f"GET {self.path}"}, 500)

    def listed(self, name, content):
        found = {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        if name.endswith(".safetensors"):
            found["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        return found

    def file(self, commit, name):
        if name not in commit[1]:
            return self.give({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        content = commit[1][name]
        if self.command == "GET":
            self.server.fetched.append(name)
        digest = hashlib.sha256(content) if name.endswith(".safetensors") else hashlib.sha1(content)
        headers = {"ETag": f'"{digest.hexdigest()}"', "X-Repo-Commit": commit[0]}
        return self.give(content, 200, headers)

    def known(self, repo_id, revision):
        if repo_id not in self.server.commits:
            self.give({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return None
        if (commit := self.server.at(repo_id, revision)) is None:
            self.give({"error": "Revision not found"}, 404, {"X-Error-Code": "RevisionNotFound"})
        return commit

    def give(self, found, status=200, headers=None):
        content = found if isinstance(found, bytes) else json.dumps(found).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def serving():
    """Run a Hub in a thread of its own, and end it."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join(timeout=10)
            assert not thread.is_alive()
