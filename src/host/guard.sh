# The guard: ends what a daemon started when the daemon has ended without saying "q".
#
#   input:  "+ PID START"  a session that ends with the daemon, led by PID, which began at START ticks
#           "- PID"        it is over
#           "q"            an orderly end: nothing is to be done
#   $1: id of the daemon's run   $2: folder of its control groups, or nothing
#
# By the rules of tree.ts it ends the sessions that it was told of, as long as their leader is gone or
# began at START, whoever carries the daemon's mark, and whatever those have started.
# For dash, bash and busybox; `sleep` with a fraction and `grep -z` are used where they exist.
# What is known of a process has its pid in its name: told_PID=START, member_PID=LOOK.

trap '' INT TERM HUP QUIT PIPE USR1 USR2 ALRM TSTP TTIN TTOU
newline='
'
IFS=" $newline"
run=$1 cgroup=$2

while read -r verb pid start; do
  case $verb in
    +) eval "told_$pid=$start" ;;
    -) unset "told_$pid" ;;
    q) exit 0 ;;
  esac
done

[ -z "$cgroup" ] || echo 1 >"$cgroup/cgroup.kill"
if printf 'a\0b\0' | grep -qsz '^b$'; then
  marked() { exec grep -lsz "^VEECLE_RUNTIME_RUN=$run\." /proc/[0-9]*/environ; }
else
  marked() { exec grep -lsF "VEECLE_RUNTIME_RUN=$run." /proc/[0-9]*/environ; }
fi

# Sets "members" to everything of ours that lives, and "groups" to the process groups of our sessions.
look=0
find_members() {
  look=$((look + 1)) members= groups=
  for path in $(LC_ALL=C marked); do
    path=${path#/proc/}
    pid=${path%/environ}
    members="$members $pid"
    eval "member_$pid=$look"
  done
  # Without the threads of the kernel, which have neither parent nor session of ours.
  stats=$(LC_ALL=C exec grep -hsv '^[0-9]* (.*) . 2 0 0 0 -1 [0-9 -]*$' /proc/[0-9]*/stat) table=
  set -f
  each_line note
  known=none
  until [ "$known" = "$members" ]; do
    known=$members
    for entry in $table; do
      IFS=:
      admit $entry
    done
    IFS=" $newline"
  done
  set +f
}

# Calls $1 with the pid, and with the text of /proc/PID/stat. Anybody may give a process a name with
# newlines; it is short, and the numbers behind it are not: what is short is gone on with in the next line.
each_line() {
  IFS=$newline stat=
  for line in $stats; do
    stat=$stat$line
    [ ${#line} -lt 80 ] && continue
    $1 "${stat%% *}" "$stat"
    stat=
  done
  IFS=" $newline"
}

# Puts a process that lives into "table" as pid:parent:group:session. A leader that began at another time
# is a stranger, to whom the number of a session of ours went.
note() {
  numbers=${2#*) }
  case $numbers in *') '*) numbers=${numbers##*) } ;; esac # slow in dash, for names with such in them
  IFS=' '
  set -- "$1" $numbers # pid state parent group session …
  eval "told=\${told_$1-}"
  [ -z "$told" ] || [ "$told" = "${21}" ] || unset "told_$1"
  case $2${19} in Z0 | Z1 | X*) return ;; esac # ended; with further threads, it has not
  table="$table $1:$3:$4:$5"
}

admit() {
  eval "mine=\${member_$1-} told=\${told_$4-} parent=\${member_$2-} leader=\${member_$4-}"
  [ "$mine" != $look ] || return
  if [ "$told" ]; then
    groups="$groups -$3"
  elif [ "$parent" != $look ] && [ "$leader" != $look ]; then
    return
  fi
  members="$members $1"
  eval "member_$1=$look"
}

rounds=0 quiet=0
while [ $rounds -lt 100 ]; do
  rounds=$((rounds + 1))
  find_members
  if [ -z "$members" ]; then
    # Once more: a child between fork and exec does not show its mark yet.
    [ $quiet = 0 ] || exit 0
    quiet=1
    sleep 0.2 || sleep 1
    continue
  fi
  quiet=0 looks=0 frozen=
  # What stands still neither forks, nor loses the parent by which it is found.
  until [ "$frozen" = "$members" ] || [ $looks = 5 ]; do
    frozen=$members looks=$((looks + 1))
    kill -s STOP $members $groups
    find_members
  done
  kill -s KILL $members $groups
done
