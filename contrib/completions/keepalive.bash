_clap_complete_keepalive() {
    local keepalive_before=
    if [[ $COMP_WORDBREAKS == *:* && $COMP_LINE == *:* ]]; then
        local COMP_WORDS COMP_CWORD keepalive_line=${COMP_LINE:0:COMP_POINT}
        IFS=' ' read -ra COMP_WORDS <<< "$keepalive_line"
        [[ $keepalive_line == *' ' ]] && COMP_WORDS+=('')
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        set -- "$1" "${COMP_WORDS[COMP_CWORD]}" "$3"
        [[ $2 == *:* ]] && keepalive_before=${2%:*}:
    fi
    local IFS=$'\013'
    local _CLAP_COMPLETE_INDEX=${COMP_CWORD}
    local _CLAP_COMPLETE_COMP_TYPE=${COMP_TYPE}
    if compopt +o nospace 2> /dev/null; then
        local _CLAP_COMPLETE_SPACE=false
    else
        local _CLAP_COMPLETE_SPACE=true
    fi
    local words=("${COMP_WORDS[@]}")
    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
        words[COMP_CWORD]="$2"
    fi
    COMPREPLY=( $( \
        _CLAP_IFS="$IFS" \
        _CLAP_COMPLETE_INDEX="$_CLAP_COMPLETE_INDEX" \
        _CLAP_COMPLETE_COMP_TYPE="$_CLAP_COMPLETE_COMP_TYPE" \
        _CLAP_COMPLETE_SPACE="$_CLAP_COMPLETE_SPACE" \
        KEEPALIVE_COMPLETE="bash" \
        "keepalive" -- "${words[@]}" \
    ) )
    if [[ $? != 0 ]]; then
        unset COMPREPLY
    elif [[ $_CLAP_COMPLETE_SPACE == false ]] && [[ "${COMPREPLY-}" =~ [=/:]$ ]]; then
        compopt -o nospace
    fi
    COMPREPLY=("${COMPREPLY[@]#"$keepalive_before"}")
}
if [[ "${BASH_VERSINFO[0]}" -eq 4 && "${BASH_VERSINFO[1]}" -ge 4 || "${BASH_VERSINFO[0]}" -gt 4 ]]; then
    complete -o nospace -o bashdefault -o nosort -F _clap_complete_keepalive keepalive
else
    complete -o nospace -o bashdefault -F _clap_complete_keepalive keepalive
fi
