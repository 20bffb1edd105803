# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_keepalive_global_optspecs
    string join \n config= json q/quiet v/verbose color= h/help V/version
end

function __fish_keepalive_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_keepalive_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_keepalive_using_subcommand
    set -l cmd (__fish_keepalive_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c keepalive -n "__fish_keepalive_needs_command" -l config -d 'Read the configuration from FILE instead of the default location' -r -F
complete -c keepalive -n "__fish_keepalive_needs_command" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t''
never\t''"
complete -c keepalive -n "__fish_keepalive_needs_command" -l json -d 'Print one JSON document; `daemon` logs one JSON object per line'
complete -c keepalive -n "__fish_keepalive_needs_command" -s q -l quiet -d 'Only print errors'
complete -c keepalive -n "__fish_keepalive_needs_command" -s v -l verbose -d 'Log the decisions and the reasons for them; -vv for every step'
complete -c keepalive -n "__fish_keepalive_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c keepalive -n "__fish_keepalive_needs_command" -s V -l version -d 'Print version'
complete -c keepalive -n "__fish_keepalive_needs_command" -f -a "login" -d 'Sign in to a provider and store the credential'
complete -c keepalive -n "__fish_keepalive_needs_command" -f -a "logout" -d 'Revoke a profile\'s credential at its provider, and delete it here'
complete -c keepalive -n "__fish_keepalive_needs_command" -f -a "import" -d 'Import a credential from a token response or another tool'
complete -c keepalive -n "__fish_keepalive_needs_command" -f -a "refresh" -d 'Refresh the profiles that are due, then exit'
complete -c keepalive -n "__fish_keepalive_needs_command" -f -a "daemon" -d 'Refresh all profiles until stopped'
complete -c keepalive -n "__fish_keepalive_needs_command" -f -a "token" -d 'Print an access token, refreshing it if necessary'
complete -c keepalive -n "__fish_keepalive_needs_command" -f -a "status" -d 'Show the state of every profile'
complete -c keepalive -n "__fish_keepalive_needs_command" -f -a "doctor" -d 'Check configuration, store, locks, clock and providers, and say how to fix each problem'
complete -c keepalive -n "__fish_keepalive_needs_command" -f -a "providers" -d 'List the providers and how each behaves'
complete -c keepalive -n "__fish_keepalive_needs_command" -f -a "rehearse" -d 'Test this machine\'s store, locks and scheduler with a throw-away credential'
complete -c keepalive -n "__fish_keepalive_needs_command" -f -a "completions" -d 'Print a completion script for a shell'
complete -c keepalive -n "__fish_keepalive_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c keepalive -n "__fish_keepalive_using_subcommand login" -l provider -d 'Provider to sign in to; required unless the profile is configured or named after a provider' -r
complete -c keepalive -n "__fish_keepalive_using_subcommand login" -l config -d 'Read the configuration from FILE instead of the default location' -r -F
complete -c keepalive -n "__fish_keepalive_using_subcommand login" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t''
never\t''"
complete -c keepalive -n "__fish_keepalive_using_subcommand login" -l device -d 'Show a code to enter on another device'
complete -c keepalive -n "__fish_keepalive_using_subcommand login" -l paste -d 'Show a link; paste back the address (or the code) that it leads to'
complete -c keepalive -n "__fish_keepalive_using_subcommand login" -l json -d 'Print one JSON document; `daemon` logs one JSON object per line'
complete -c keepalive -n "__fish_keepalive_using_subcommand login" -s q -l quiet -d 'Only print errors'
complete -c keepalive -n "__fish_keepalive_using_subcommand login" -s v -l verbose -d 'Log the decisions and the reasons for them; -vv for every step'
complete -c keepalive -n "__fish_keepalive_using_subcommand login" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c keepalive -n "__fish_keepalive_using_subcommand logout" -l config -d 'Read the configuration from FILE instead of the default location' -r -F
complete -c keepalive -n "__fish_keepalive_using_subcommand logout" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t''
never\t''"
complete -c keepalive -n "__fish_keepalive_using_subcommand logout" -l forget -d 'Delete the credential here even if it cannot be revoked'
complete -c keepalive -n "__fish_keepalive_using_subcommand logout" -l json -d 'Print one JSON document; `daemon` logs one JSON object per line'
complete -c keepalive -n "__fish_keepalive_using_subcommand logout" -s q -l quiet -d 'Only print errors'
complete -c keepalive -n "__fish_keepalive_using_subcommand logout" -s v -l verbose -d 'Log the decisions and the reasons for them; -vv for every step'
complete -c keepalive -n "__fish_keepalive_using_subcommand logout" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c keepalive -n "__fish_keepalive_using_subcommand import" -l provider -d 'Provider that issued it; required if the profile is not configured' -r
complete -c keepalive -n "__fish_keepalive_using_subcommand import" -l from -d 'Read the store of this tool' -r -f -a "codex\t''
claude\t''
grok\t''
gemini\t''
openclaw\t''
oidc-agent\t''
pizauth\t''"
complete -c keepalive -n "__fish_keepalive_using_subcommand import" -l account -d 'Account in that store, by its name there or its email address; required if there are several' -r
complete -c keepalive -n "__fish_keepalive_using_subcommand import" -l config -d 'Read the configuration from FILE instead of the default location' -r -F
complete -c keepalive -n "__fish_keepalive_using_subcommand import" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t''
never\t''"
complete -c keepalive -n "__fish_keepalive_using_subcommand import" -l replace -d 'Replace the stored credential even if it is newer or belongs to another account'
complete -c keepalive -n "__fish_keepalive_using_subcommand import" -l json -d 'Print one JSON document; `daemon` logs one JSON object per line'
complete -c keepalive -n "__fish_keepalive_using_subcommand import" -s q -l quiet -d 'Only print errors'
complete -c keepalive -n "__fish_keepalive_using_subcommand import" -s v -l verbose -d 'Log the decisions and the reasons for them; -vv for every step'
complete -c keepalive -n "__fish_keepalive_using_subcommand import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c keepalive -n "__fish_keepalive_using_subcommand refresh" -s p -l profile -d 'Refresh this profile; can be repeated' -r
complete -c keepalive -n "__fish_keepalive_using_subcommand refresh" -l lookahead -d 'Also refresh what becomes due within DUR; set it to the interval between runs' -r
complete -c keepalive -n "__fish_keepalive_using_subcommand refresh" -l timeout -d 'End after DUR; a request that was sent is still completed' -r
complete -c keepalive -n "__fish_keepalive_using_subcommand refresh" -l config -d 'Read the configuration from FILE instead of the default location' -r -F
complete -c keepalive -n "__fish_keepalive_using_subcommand refresh" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t''
never\t''"
complete -c keepalive -n "__fish_keepalive_using_subcommand refresh" -l force -d 'Refresh now, even if not due'
complete -c keepalive -n "__fish_keepalive_using_subcommand refresh" -l json -d 'Print one JSON document; `daemon` logs one JSON object per line'
complete -c keepalive -n "__fish_keepalive_using_subcommand refresh" -s q -l quiet -d 'Only print errors'
complete -c keepalive -n "__fish_keepalive_using_subcommand refresh" -s v -l verbose -d 'Log the decisions and the reasons for them; -vv for every step'
complete -c keepalive -n "__fish_keepalive_using_subcommand refresh" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c keepalive -n "__fish_keepalive_using_subcommand daemon" -l config -d 'Read the configuration from FILE instead of the default location' -r -F
complete -c keepalive -n "__fish_keepalive_using_subcommand daemon" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t''
never\t''"
complete -c keepalive -n "__fish_keepalive_using_subcommand daemon" -l json -d 'Print one JSON document; `daemon` logs one JSON object per line'
complete -c keepalive -n "__fish_keepalive_using_subcommand daemon" -s q -l quiet -d 'Only print errors'
complete -c keepalive -n "__fish_keepalive_using_subcommand daemon" -s v -l verbose -d 'Log the decisions and the reasons for them; -vv for every step'
complete -c keepalive -n "__fish_keepalive_using_subcommand daemon" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c keepalive -n "__fish_keepalive_using_subcommand token" -l min-valid -d 'Refresh unless the token is valid for at least DUR' -r
complete -c keepalive -n "__fish_keepalive_using_subcommand token" -l format -d 'Output format' -r -f -a "raw\t'The token alone'
json\t'A JSON object with the token, its expiry, scope and generation'
header\t'An HTTP Authorization header'"
complete -c keepalive -n "__fish_keepalive_using_subcommand token" -l timeout -d 'Wait at most DUR. A refresh by another process continues; one that this command sent is always finished first' -r
complete -c keepalive -n "__fish_keepalive_using_subcommand token" -l config -d 'Read the configuration from FILE instead of the default location' -r -F
complete -c keepalive -n "__fish_keepalive_using_subcommand token" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t''
never\t''"
complete -c keepalive -n "__fish_keepalive_using_subcommand token" -l json -d 'Print one JSON document; `daemon` logs one JSON object per line'
complete -c keepalive -n "__fish_keepalive_using_subcommand token" -s q -l quiet -d 'Only print errors'
complete -c keepalive -n "__fish_keepalive_using_subcommand token" -s v -l verbose -d 'Log the decisions and the reasons for them; -vv for every step'
complete -c keepalive -n "__fish_keepalive_using_subcommand token" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c keepalive -n "__fish_keepalive_using_subcommand status" -s p -l profile -d 'Show only this profile; can be repeated' -r
complete -c keepalive -n "__fish_keepalive_using_subcommand status" -l config -d 'Read the configuration from FILE instead of the default location' -r -F
complete -c keepalive -n "__fish_keepalive_using_subcommand status" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t''
never\t''"
complete -c keepalive -n "__fish_keepalive_using_subcommand status" -l json -d 'Print one JSON document; `daemon` logs one JSON object per line'
complete -c keepalive -n "__fish_keepalive_using_subcommand status" -s q -l quiet -d 'Only print errors'
complete -c keepalive -n "__fish_keepalive_using_subcommand status" -s v -l verbose -d 'Log the decisions and the reasons for them; -vv for every step'
complete -c keepalive -n "__fish_keepalive_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c keepalive -n "__fish_keepalive_using_subcommand doctor" -s p -l profile -d 'Also take over this profile, which is neither configured nor stored here; can be repeated' -r
complete -c keepalive -n "__fish_keepalive_using_subcommand doctor" -l config -d 'Read the configuration from FILE instead of the default location' -r -F
complete -c keepalive -n "__fish_keepalive_using_subcommand doctor" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t''
never\t''"
complete -c keepalive -n "__fish_keepalive_using_subcommand doctor" -l take-over -d 'Make this machine and state directory the owner of the credentials'
complete -c keepalive -n "__fish_keepalive_using_subcommand doctor" -l json -d 'Print one JSON document; `daemon` logs one JSON object per line'
complete -c keepalive -n "__fish_keepalive_using_subcommand doctor" -s q -l quiet -d 'Only print errors'
complete -c keepalive -n "__fish_keepalive_using_subcommand doctor" -s v -l verbose -d 'Log the decisions and the reasons for them; -vv for every step'
complete -c keepalive -n "__fish_keepalive_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c keepalive -n "__fish_keepalive_using_subcommand providers" -l config -d 'Read the configuration from FILE instead of the default location' -r -F
complete -c keepalive -n "__fish_keepalive_using_subcommand providers" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t''
never\t''"
complete -c keepalive -n "__fish_keepalive_using_subcommand providers" -l json -d 'Print one JSON document; `daemon` logs one JSON object per line'
complete -c keepalive -n "__fish_keepalive_using_subcommand providers" -s q -l quiet -d 'Only print errors'
complete -c keepalive -n "__fish_keepalive_using_subcommand providers" -s v -l verbose -d 'Log the decisions and the reasons for them; -vv for every step'
complete -c keepalive -n "__fish_keepalive_using_subcommand providers" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c keepalive -n "__fish_keepalive_using_subcommand rehearse" -l crowd -d 'Concurrent processes per round' -r
complete -c keepalive -n "__fish_keepalive_using_subcommand rehearse" -l config -d 'Read the configuration from FILE instead of the default location' -r -F
complete -c keepalive -n "__fish_keepalive_using_subcommand rehearse" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t''
never\t''"
complete -c keepalive -n "__fish_keepalive_using_subcommand rehearse" -l json -d 'Print one JSON document; `daemon` logs one JSON object per line'
complete -c keepalive -n "__fish_keepalive_using_subcommand rehearse" -s q -l quiet -d 'Only print errors'
complete -c keepalive -n "__fish_keepalive_using_subcommand rehearse" -s v -l verbose -d 'Log the decisions and the reasons for them; -vv for every step'
complete -c keepalive -n "__fish_keepalive_using_subcommand rehearse" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c keepalive -n "__fish_keepalive_using_subcommand completions" -l config -d 'Read the configuration from FILE instead of the default location' -r -F
complete -c keepalive -n "__fish_keepalive_using_subcommand completions" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t''
never\t''"
complete -c keepalive -n "__fish_keepalive_using_subcommand completions" -l json -d 'Print one JSON document; `daemon` logs one JSON object per line'
complete -c keepalive -n "__fish_keepalive_using_subcommand completions" -s q -l quiet -d 'Only print errors'
complete -c keepalive -n "__fish_keepalive_using_subcommand completions" -s v -l verbose -d 'Log the decisions and the reasons for them; -vv for every step'
complete -c keepalive -n "__fish_keepalive_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c keepalive -n "__fish_keepalive_using_subcommand help; and not __fish_seen_subcommand_from login logout import refresh daemon token status doctor providers rehearse completions help" -f -a "login" -d 'Sign in to a provider and store the credential'
complete -c keepalive -n "__fish_keepalive_using_subcommand help; and not __fish_seen_subcommand_from login logout import refresh daemon token status doctor providers rehearse completions help" -f -a "logout" -d 'Revoke a profile\'s credential at its provider, and delete it here'
complete -c keepalive -n "__fish_keepalive_using_subcommand help; and not __fish_seen_subcommand_from login logout import refresh daemon token status doctor providers rehearse completions help" -f -a "import" -d 'Import a credential from a token response or another tool'
complete -c keepalive -n "__fish_keepalive_using_subcommand help; and not __fish_seen_subcommand_from login logout import refresh daemon token status doctor providers rehearse completions help" -f -a "refresh" -d 'Refresh the profiles that are due, then exit'
complete -c keepalive -n "__fish_keepalive_using_subcommand help; and not __fish_seen_subcommand_from login logout import refresh daemon token status doctor providers rehearse completions help" -f -a "daemon" -d 'Refresh all profiles until stopped'
complete -c keepalive -n "__fish_keepalive_using_subcommand help; and not __fish_seen_subcommand_from login logout import refresh daemon token status doctor providers rehearse completions help" -f -a "token" -d 'Print an access token, refreshing it if necessary'
complete -c keepalive -n "__fish_keepalive_using_subcommand help; and not __fish_seen_subcommand_from login logout import refresh daemon token status doctor providers rehearse completions help" -f -a "status" -d 'Show the state of every profile'
complete -c keepalive -n "__fish_keepalive_using_subcommand help; and not __fish_seen_subcommand_from login logout import refresh daemon token status doctor providers rehearse completions help" -f -a "doctor" -d 'Check configuration, store, locks, clock and providers, and say how to fix each problem'
complete -c keepalive -n "__fish_keepalive_using_subcommand help; and not __fish_seen_subcommand_from login logout import refresh daemon token status doctor providers rehearse completions help" -f -a "providers" -d 'List the providers and how each behaves'
complete -c keepalive -n "__fish_keepalive_using_subcommand help; and not __fish_seen_subcommand_from login logout import refresh daemon token status doctor providers rehearse completions help" -f -a "rehearse" -d 'Test this machine\'s store, locks and scheduler with a throw-away credential'
complete -c keepalive -n "__fish_keepalive_using_subcommand help; and not __fish_seen_subcommand_from login logout import refresh daemon token status doctor providers rehearse completions help" -f -a "completions" -d 'Print a completion script for a shell'
complete -c keepalive -n "__fish_keepalive_using_subcommand help; and not __fish_seen_subcommand_from login logout import refresh daemon token status doctor providers rehearse completions help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
