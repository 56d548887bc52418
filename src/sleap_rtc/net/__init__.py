"""The way to the server: its address, the WebSocket, signaling."""
