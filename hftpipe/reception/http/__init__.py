"""The HTTP transport: transactions in, what became of them out.

    connection.py  bytes in (httptools), turns in order, deadlines ─► application.py  routes, tokens, errors
                                                                       submission.py  POST /v1/transactions
    server.py      listens, sweeps deadlines, stops                    lookups.py     GET accounts and transactions
                                                                       document.py, page.py  what all that is, told

There is no framework between: what a route needs is little, and every bound on bytes and time has to be kept where
the bytes come in.
"""
