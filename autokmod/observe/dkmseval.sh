# Evaluates dkms.conf files and writes their variables, NUL-separated triples of name, index and value, to a
# descriptor. Runs in the sandbox, as `bash -O extglob -c THIS autokmod-eval FD KREL CONF…`.
#
# What the confs do to this shell is their affair (they may print, fail, `set -u`, redefine printf): the shell's
# only promise is the record named END, which comes last or not at all.

readonly _autokmod_krel=$2
exec {_autokmod_fd}>&"$1"
eval "exec $1>&-"
readonly _autokmod_fd
_autokmod_confs=("${@:3}")
export -n dkms_tree source_tree install_tree kernel_source_dir kernel_config parallel_jobs

_autokmod_put() { builtin printf '%s\0' "$@" >&"$_autokmod_fd"; }

# DKMS reads each value twice, so $kernelver within single quotes is expanded as well. Not in commands, which are
# expanded when they run, nor in regular expressions, where $ means the end.
_autokmod_expand() {
    case $1 in MAKE | PRE_* | POST_* | *_MATCH | BUILD_EXCLUSIVE_KERNEL | BUILD_EXCLUSIVE_ARCH) return 0 ;; esac
    [[ $_autokmod_value == *'$'* && $_autokmod_value != *[\"\\]* ]] || return 0
    builtin eval "_autokmod_value=\"$_autokmod_value\""
}

_autokmod_values() {
    local _autokmod_name _autokmod_index _autokmod_value _autokmod_text
    for _autokmod_name in "$@"; do
        builtin declare -n _autokmod_array=$_autokmod_name
        for _autokmod_index in "${!_autokmod_array[@]}"; do
            _autokmod_value=${_autokmod_array[$_autokmod_index]}
            _autokmod_expand "$_autokmod_name"
            _autokmod_put "$_autokmod_name" "$_autokmod_index" "$_autokmod_value"
        done
        builtin unset -n _autokmod_array
    done
}

# Status 0: it matches, 1: it does not, 2: it is no regular expression.
_autokmod_matches() {
    local _autokmod_index _autokmod_regex
    builtin declare -n _autokmod_array=$1
    for _autokmod_index in "${!_autokmod_array[@]}"; do
        _autokmod_regex=${_autokmod_array[$_autokmod_index]%$'\r'}
        [[ $2 =~ $_autokmod_regex ]] && _autokmod_put "$1=~" "$_autokmod_index" 0 ||
            _autokmod_put "$1=~" "$_autokmod_index" "$?"
    done
    builtin unset -n _autokmod_array
}
readonly -f _autokmod_put _autokmod_expand _autokmod_values _autokmod_matches

for _autokmod_conf in "${_autokmod_confs[@]}"; do
    "$BASH" -O extglob -n "$_autokmod_conf" || { _autokmod_put SYNTAX 0 "$_autokmod_conf"; exit 1; }
done
_autokmod_arch=$arch
readonly _autokmod_arch

# In a function, as DKMS does: confs use `local`. What they declare is then to be looked at from within.
_autokmod_read() {
    for _autokmod_conf in "${_autokmod_confs[@]}"; do
        _autokmod_put CONF 0 "$_autokmod_conf"
        . "$_autokmod_conf"
    done

    # From here on the shell is no longer the confs': in POSIX mode `unset` and `set` are found before functions.
    POSIXLY_CORRECT=1
    unset -f builtin printf eval declare local readonly return case
    set +eufnvx
    unset IFS
    _autokmod_values \
        PACKAGE_NAME PACKAGE_VERSION AUTOINSTALL NO_WEAK_MODULES OBSOLETE_BY \
        BUILT_MODULE_NAME BUILT_MODULE_LOCATION DEST_MODULE_NAME DEST_MODULE_LOCATION STRIP \
        MAKE MAKE_MATCH PATCH PATCH_MATCH BUILD_DEPENDS BUILD_DEPENDS_REBUILD \
        BUILD_EXCLUSIVE_KERNEL BUILD_EXCLUSIVE_KERNEL_MIN BUILD_EXCLUSIVE_KERNEL_MAX BUILD_EXCLUSIVE_ARCH \
        BUILD_EXCLUSIVE_CONFIG PRE_BUILD POST_BUILD POST_ADD PRE_INSTALL POST_INSTALL POST_REMOVE \
        REMAKE_INITRD MODULES_CONF MODULES_CONF_OBSOLETES MODULES_CONF_ALIAS_TYPE MODULES_CONF_OBSOLETE_ONLY
    _autokmod_matches MAKE_MATCH "$_autokmod_krel"
    _autokmod_matches PATCH_MATCH "$_autokmod_krel"
    _autokmod_matches BUILD_EXCLUSIVE_KERNEL "$_autokmod_krel"
    _autokmod_matches BUILD_EXCLUSIVE_ARCH "$_autokmod_arch"
    _autokmod_put END 0 ""
    exit 0
}
_autokmod_read
