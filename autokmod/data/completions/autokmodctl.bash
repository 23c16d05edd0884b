# bash completion for autokmodctl

_autokmodctl_list() {
    autokmodctl "$@" --no-legend --no-pager 2>/dev/null
}

_autokmodctl() {
    local cur=${COMP_WORDS[COMP_CWORD]} verb='' root=() words=() i nth=0
    local options='--json= --json --no-legend --no-pager --quiet --root --help --version'
    local verbs='status explain check ready list-kernels list-packages list-jobs reconcile retry cancel wait logs verify'

    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            --root)
                ((++i))
                root=(--root "${COMP_WORDS[i]-}")
                ;;
            -*) ;;
            *)
                if [[ -z $verb ]]; then verb=${COMP_WORDS[i]}; else ((++nth)); fi
                ;;
        esac
    done

    if [[ ${COMP_WORDS[COMP_CWORD - 1]} == --root ]]; then
        mapfile -t COMPREPLY < <(compgen -d -- "$cur")
        return
    fi
    if [[ $cur == -* ]]; then
        case $verb in
            reconcile) options+=' --wait --force' ;;
            retry) options+=' --wait' ;;
            explain) options+=' --all' ;;
            check) options+=' --kernel' ;;
        esac
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
        return
    fi

    case $verb,$nth in
        ,*) words=("$verbs") ;;
        status,0)
            words=("$(_autokmodctl_list "${root[@]}" list-kernels | awk '{print $1}')"
                "$(_autokmodctl_list "${root[@]}" list-packages | awk '{print $1}')")
            ;;
        explain,0 | logs,0) words=("$(_autokmodctl_list "${root[@]}" list-packages | awk '{print $1}')") ;;
        explain,1 | logs,1 | ready,0 | reconcile,* | retry,* | wait,* | verify,*)
            words=("$(_autokmodctl_list "${root[@]}" list-kernels | awk '{print $1}')")
            ;;
        cancel,*) words=("$(_autokmodctl_list "${root[@]}" list-jobs | awk '{print $2}')") ;;
        check,*)
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            return
            ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "${words[*]}" -- "$cur")
}

complete -o default -F _autokmodctl autokmodctl
