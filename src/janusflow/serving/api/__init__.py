"""The HTTP interface: OpenAI's requests and answers."""
