"""The HTTP transport: transactions in, what became of them out.

server.py      listens, sweeps deadlines, stops    application.py  routes and errors (Starlette), an ASGI app
connection.py  uvicorn's protocol, with bounds ─►  doors.py        tokens, and options of a query
                                                   submission.py   POST /v1/transactions
                                                   lookups.py      GET accounts and transactions
                                                   dashboard/      the page at /, and what it asks
                                                   document.py, page.py  what all that is, told
"""
