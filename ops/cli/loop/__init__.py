"""`nexus dev`: a stack's queues, worked on by the code of this checkout instead of the deployed functions.

Three kinds of processes. `session` pauses the queues, watches the files and resumes the queues. `server` has imported
the packages and none of the project's code, and forks the workers: after a change it forks new ones. Each `worker`
receives the messages of one queue and passes them to the function's handler. All three share the terminal, so
`breakpoint()` works. Messages run one at a time, so that two breakpoints never compete for the keyboard.
"""
