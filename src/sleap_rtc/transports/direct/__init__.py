"""Direct connections where peers reach each other: TLS 1.3 over TCP, or a Unix socket."""
