"""nginx as an external service that tells what it sees."""

from __future__ import annotations

import tempfile
from pathlib import Path

from plugin.dev import locate
from plugin.dev.processes import Child, Launcher, can_connect, free_ports
from tests.support.seeing import Sight, SightLog

# One process, so that ending it ends all of it. Only a request that is passed on has its body read and logged: an
# answering server stands behind the one that is looked at.
_CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_body_buffer_size 2m;
    client_body_in_single_buffer on;
    client_max_body_size 0;
    large_client_header_buffers 8 128k;
    keepalive_requests 100000;
    log_format seen escape=json '{{"method":"$request_method","target":"$request_uri","path":"$opened",'
        '"host":"$http_host","caller":"$http_x_forwarded_client_cert","body":"$request_body","completed":"$request_completion","status":"$status"}}';
    log_format unread escape=json '{{"method":"$request_method","target":"$request_uri","path":"$opened",'
        '"host":"$http_host","caller":"$http_x_forwarded_client_cert",'
        '"completed":"$request_completion","status":"$status"}}';
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{http2_port} http2;
        access_log {folder}/seen.jsonl seen;
        set $opened $uri;
        location = /not-modified {{ return 304; }}
        location = /no-content {{ return 204; }}
        location = /early {{ access_log {folder}/seen.jsonl unread; return 200 early; }}
        location / {{ rewrite ^ /answer break; proxy_pass http://127.0.0.1:{inner_port}; }}
    }}
    server {{
        listen 127.0.0.1:{inner_port};
        access_log off;
        location / {{ return 200 seen; }}
    }}
}}
"""


class Nginx(Launcher):
    def __init__(self) -> None:
        self.port, self.http2_port, self._inner_port = free_ports(3)
        self._folder = tempfile.TemporaryDirectory(prefix="consul-tgw-nginx-")
        self._log = SightLog(Path(self._folder.name) / "seen.jsonl")
        self.child: Child | None = None

    async def start(self) -> None:
        folder = Path(self._folder.name)
        config = folder / "nginx.conf"
        config.write_text(
            _CONFIG.format(folder=folder, port=self.port, http2_port=self.http2_port, inner_port=self._inner_port)
        )
        program = [str(locate.nginx()), "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")]
        self.child = Child("nginx", program, folder / "output.log", folder=folder)
        await self.child.started(lambda: can_connect("127.0.0.1", self.port))

    async def stop(self) -> None:
        if self.child is not None:
            await self.child.terminate()
            self.child = None
        self._folder.cleanup()

    def sights(self) -> list[Sight]:
        return self._log.sights()
