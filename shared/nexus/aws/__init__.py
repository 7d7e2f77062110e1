"""AWS as the runtime uses it: the clients, DynamoDB's request language, and requests to one table.

Belongs here: code that knows AWS but not tasks. Does not belong here: run records, messages, and any table's schema.
"""
