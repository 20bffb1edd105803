complete --keep-order --exclusive --command keepalive --arguments "(KEEPALIVE_COMPLETE=fish keepalive -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
