"""nginx as a reverse proxy: what moving the bytes costs at the least."""

import shutil
from pathlib import Path

CONFIGURATION = """
daemon off;
master_process on;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    client_max_body_size 32m;
    client_body_buffer_size 256k;
    upstream static {{
        server 127.0.0.1:{upstream_port};
        keepalive 128;
        keepalive_requests 1000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://static;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            # Events must not wait for a buffer to fill.
            proxy_buffering off;
            proxy_read_timeout 660s;
        }}
    }}
}}
"""


def find_nginx() -> str | None:
    """The program, where it is installed."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def nginx_command(program: str, *, folder: Path, port: int, upstream_port: int) -> list[str]:
    """The command of an nginx with a configuration of its own in `folder`."""
    path = folder / "nginx.conf"
    path.write_text(CONFIGURATION.format(folder=folder, port=port, upstream_port=upstream_port))
    return [program, "-p", str(folder), "-c", str(path), "-e", str(folder / "error.log")]
