"""A client of the reference's MCP server, made of the protocol's own package: JSON lines in, JSON lines out.

It starts the server that its arguments name and prints the tools that it offers. Each line of standard input is then
`[tool, arguments]`, and what the tool answered is printed.
"""

import json
import os
import sys

import anyio
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


async def main():
    server = StdioServerParameters(command=sys.argv[1], args=sys.argv[2:], env=dict(os.environ))
    async with stdio_client(server) as (reading, writing), ClientSession(reading, writing) as session:
        about = await session.initialize()
        tools = (await session.list_tools()).tools
        print(json.dumps({"server": about.serverInfo.name, "tools": [tool.name for tool in tools]}), flush=True)
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            tool, arguments = json.loads(line)
            result = await session.call_tool(tool, arguments)
            answer = {"error": bool(result.isError), "text": [part.text for part in result.content]}
            print(json.dumps(answer), flush=True)


anyio.run(main)
