"""What schemathesis has to be told of bodies that are text."""

import schemathesis


@schemathesis.serializer("application/x-ndjson", "application/toml")
def text(ctx, value):
    """A string is sent as it is."""
    return str(value).encode("utf-8", errors="surrogatepass")
