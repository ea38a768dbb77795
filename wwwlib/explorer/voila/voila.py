"""Settings of the explorer's server, which Voilà reads from the folders of JUPYTER_CONFIG_PATH."""

from jupyter_server import DEFAULT_STATIC_FILES_PATH
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.web import HTTPError

KERNELS = 4  # a page each, of about 1 GB
MIB = 2**20
POLICY = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval'",  # Voilà's own scripts
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "connect-src": "'self' ws://127.0.0.1:*",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
}


class Kernels(AsyncMappingKernelManager):
    """At most `KERNELS` kernels; those whose page was closed make room first."""

    async def start_kernel(self, *args: object, **options: object) -> str:
        """Start a kernel, or refuse with status 503 if every kernel belongs to an open page."""
        left = [one for one in self.list_kernel_ids() if not self._kernel_connections.get(one)]
        idle = [
            one for one in left if getattr(self.get_kernel(one), "execution_state", "") == "idle"
        ]
        for kernel in idle[: max(0, len(self) - KERNELS + 1)]:
            await self.shutdown_kernel(kernel)
        if len(self) >= KERNELS:
            raise HTTPError(503, f"{KERNELS} pages are open already; close one and load this again")
        return await super().start_kernel(*args, **options)


c = get_config()  # noqa: F821, defined where settings are read
c.VoilaConfiguration.multi_kernel_manager_class = Kernels
c.MappingKernelManager.cull_idle_timeout = 300  # seconds after the last sign of a closed page
c.MappingKernelManager.cull_interval = 30
c.Voila.tornado_settings = {
    "static_path": str(DEFAULT_STATIC_FILES_PATH),  # without it /logout and errors are a bare 500
    "static_url_prefix": "/voila/static/",
    "websocket_max_message_size": 96 * MIB,  # uploads; the page refuses those above 64 MiB
    "headers": {
        "Content-Security-Policy": "; ".join(f"{what} {where}" for what, where in POLICY.items())
    },
}
