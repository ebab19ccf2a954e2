"""The request walk: one request followed through what the proxies really hold, hop by hop."""
