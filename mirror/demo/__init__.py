"""`layover demo`: an embedded registry, a replica of its own, and the story of one image pulled three times.

May import: everything below `cli`, and on its own account aiohttp's client and server and rich.
Callers may rely on: nothing outlives `story.run`, no process, port or file; nothing but loopback is ever dialled.
"""
