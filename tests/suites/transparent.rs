//! What the docker CLI does through Selvedge is what it does directly: output, errors and exit codes.
//!
//! Each case is a script that runs for every installed CLI, once directly and once through Selvedge. It takes
//! its containers and images away itself, and filters out only what differs between any two runs.

use selvedge_tests::Lab;
use selvedge_tests::compare;
use selvedge_tests::docker::Docker;

fn same(name: &str, script: &str) {
    let lab = Lab::shared();
    for program in Docker::programs() {
        let (direct, through) =
            (lab.engine.docker().with_program(program), lab.selvedge.docker().with_program(program));
        compare::same(&format!("{name}, with {program}"), &direct, &through, script);
    }
}

#[test]
fn run_in_the_foreground_gives_both_outputs_and_the_exit_code() {
    same(
        "foreground",
        r#"
        docker run --rm busybox sh -c 'echo out; echo err >&2; exit 3'; echo "code $?"
        docker run --rm busybox true; echo "code $?"
        docker run --rm busybox sh -c 'kill -9 $$'; echo "code $?"
        docker run --name tr-fg busybox echo kept; docker ps -a --filter name=tr-fg --format '{{.Names}} {{.Image}} {{.Command}}'
        docker rm tr-fg
        "#,
    );
}

#[test]
fn run_detached_and_what_follows_it() {
    same(
        "detached",
        r#"
        docker run -d --name tr-d busybox sh -c 'echo one; echo two >&2; exit 5'
        docker wait tr-d; docker logs tr-d; docker rm tr-d
        docker run -d --rm --name tr-drm busybox sleep 60
        docker stop -t 0 tr-drm; echo "code $?"
        while docker inspect tr-drm >/dev/null 2>&1; do sleep 0.05; done
        docker inspect tr-drm
        docker create --name tr-c busybox echo later; docker start -a tr-c; docker start tr-c; docker wait tr-c; docker logs tr-c
        docker rm -v tr-c
        "#,
    );
}

#[test]
fn stdin_reaches_the_program_and_its_end_too_and_what_is_written_later_still_arrives() {
    same(
        "stdin",
        r#"
        printf 'b\na\n' | docker run --rm -i busybox sort; echo "code $?"
        printf 'x\n' | docker run --rm -i busybox sh -c 'cat; sleep 0.5; echo late; sleep 0.5; echo later >&2; exit 6'; echo "code $?"
        docker run --rm -i busybox cat </dev/null; echo "code $?"
        head -c 5000000 /dev/zero | docker run --rm -i busybox wc -c
        head -c 3000000 /dev/urandom >/tmp/tr-in.$$
        md5sum </tmp/tr-in.$$ >/tmp/tr-sum.$$; docker run --rm -i busybox cat </tmp/tr-in.$$ | md5sum | cmp - /tmp/tr-sum.$$
        rm /tmp/tr-in.$$ /tmp/tr-sum.$$
        yes | docker run --rm -i busybox head -n 2; echo "code $?"
        docker run --rm busybox sh -c 'head -c 20000000 /dev/zero' | wc -c
        "#,
    );
}

#[test]
fn a_terminal_is_one() {
    same(
        "terminal",
        r#"
        script -qec "$DOCKER run --rm -t busybox sh -c 'tty; exit 4'" /dev/null </dev/null; echo "code $?"
        script -qec "stty rows 33 cols 101; $DOCKER run --rm -t busybox sh -c 'sleep 1; stty size; [ -t 0 ] && [ -t 1 ] && echo both'" /dev/null </dev/null
        (sleep 2; printf 'echo $((6*7))\n'; sleep 1; printf 'exit 8\n'; sleep 1) | script -qec "$DOCKER run --rm -i -t busybox sh -c 'PS1= exec sh'" /dev/null | grep -c '^42'
        docker run -d -t --name tr-t busybox sh -c 'echo hi; sleep 600'
        until docker logs tr-t | grep -q hi; do sleep 0.05; done
        docker logs tr-t | od -c | head -n 1
        script -qec "$DOCKER exec -t tr-t sh -c 'tty; exit 9'" /dev/null </dev/null; echo "code $?"
        docker exec -t tr-t echo no-terminal-here; echo "code $?"
        docker run --rm -it busybox true; echo "code $?"
        docker rm -f tr-t
        "#,
    );
}

#[test]
fn a_terminal_can_be_left_by_its_keys_and_attached_again() {
    same(
        "detach keys",
        r#"
        docker run -d -i -t --name tr-keys busybox sh -c 'read line; echo "read $line"; exit 3'
        (sleep 1; printf '\020\021'; sleep 1) | script -qec "$DOCKER attach tr-keys" /dev/null >/dev/null; echo "code $?"
        docker ps --filter name=tr-keys --format '{{.Names}}'
        (sleep 1; printf 'word\n'; sleep 1) | script -qec "$DOCKER attach tr-keys" /dev/null | grep -c 'read word'
        docker wait tr-keys; docker rm tr-keys
        "#,
    );
}

#[test]
fn signals_of_the_foreground_reach_the_program() {
    same(
        "sig-proxy",
        r#"
        : >/tmp/tr-sig.$$
        $DOCKER run --name tr-sig busybox sh -c 'trap "echo got; exit 9" TERM; echo ready; while :; do sleep 0.1; done' >/tmp/tr-sig.$$ & pid=$!
        until grep -q ready /tmp/tr-sig.$$; do sleep 0.05; done
        kill -TERM $pid; wait $pid; echo "code $?"
        cat /tmp/tr-sig.$$; rm /tmp/tr-sig.$$; docker rm tr-sig
        "#,
    );
}

#[test]
fn options_of_run_mean_the_same() {
    same(
        "options",
        r#"
        docker run --rm --user 65534:65534 -w /tmp -e A=b -e C busybox sh -c 'id -u; id -g; pwd; echo $A'
        docker run --rm --hostname tr-host --domainname tr.example busybox sh -c 'hostname; hostname -f; cat /etc/hostname'
        docker run --rm --read-only busybox sh -c 'echo x >/x; echo "code $?"'
        docker run --rm --init busybox sh -c '[ $$ -gt 1 ] && echo child; ps -o pid,comm | tail -n +2 | head -n 1'
        docker run --rm --entrypoint echo busybox entry point
        docker run --rm --memory 64m --pids-limit 50 --cpus 0.5 busybox echo limited
        docker run --rm --tmpfs /t:size=1m -v /tr-anon busybox sh -c 'grep -c " /t " /proc/mounts; grep -c " /tr-anon " /proc/mounts'
        docker run --rm --cap-drop ALL --security-opt no-new-privileges busybox sh -c 'grep -E "CapEff|NoNewPrivs" /proc/self/status'
        docker run --rm --ulimit nofile=99:99 --shm-size 1m busybox sh -c 'ulimit -n; df -k /dev/shm | tail -n 1 | cut -c 1-40'
        docker run --rm --add-host tr-there:192.0.2.1 busybox sh -c 'grep tr-there /etc/hosts'
        docker run --rm --cidfile /tmp/tr-cid.$$ busybox true; wc -c </tmp/tr-cid.$$; rm /tmp/tr-cid.$$
        docker run --rm --privileged busybox sh -c 'grep CapEff /proc/self/status'
        docker run --rm --log-driver none busybox echo unlogged
        docker run --rm --dns 192.0.2.53 --network host busybox cat /etc/resolv.conf | grep -c nameserver
        docker run --rm --env-file /dev/null --label a=b --stop-signal INT --restart no busybox echo fine
        "#,
    );
}

#[test]
fn options_of_the_network_mean_the_same() {
    same(
        "network modes",
        r#"
        docker run --rm --network none busybox sh -c 'ls /sys/class/net | grep -v selvedge0'
        docker run --rm --network host busybox sh -c 'ls /sys/class/net | grep -c "^lo$"'
        docker network create tr-modes >/dev/null
        docker run -d --name tr-modes-a --network tr-modes --network-alias other busybox sleep 600
        docker run --rm --network tr-modes busybox ping -c 1 -W 2 other | grep -c '1 packets received'
        docker run --rm --network container:tr-modes-a busybox hostname
        docker run -d --name tr-modes-p -p 127.0.0.1::80/tcp -p 53/udp busybox sleep 600
        docker port tr-modes-p | sed 's/:[0-9]*$/:PORT/' | sort
        docker port tr-modes-p 81; echo "code $?"
        docker network connect tr-modes tr-modes-p
        docker exec tr-modes-p ping -c 1 -W 2 other | grep -c '1 packets received'
        docker network disconnect tr-modes tr-modes-p; docker exec tr-modes-p ping -c 1 -W 2 other; echo "code $?"
        docker rm -f tr-modes-a tr-modes-p; docker network rm tr-modes
        "#,
    );
}

#[test]
fn exec_does_what_it_does() {
    same(
        "exec",
        r#"
        docker run -d --name tr-exec busybox sh -c 'trap "exit 0" TERM; while :; do sleep 0.1; done'
        docker exec tr-exec sh -c 'echo out; echo err >&2; exit 7'; echo "code $?"
        printf 'b\na\n' | docker exec -i tr-exec sort
        printf 'x\n' | docker exec -i tr-exec sh -c 'cat; sleep 0.5; echo late'
        docker exec -d tr-exec sh -c 'echo done >/tmp/mark'; echo "code $?"
        until docker exec tr-exec test -e /tmp/mark; do sleep 0.05; done; docker exec tr-exec cat /tmp/mark
        docker exec -u 65534 -w /etc -e A=b tr-exec sh -c 'id -u; pwd; echo $A'
        docker exec tr-exec /no/such/program; echo "code $?"
        docker exec tr-exec /etc/passwd; echo "code $?"
        docker exec -w /no/such/dir tr-exec true; echo "code $?"
        head -c 3000000 /dev/zero | docker exec -i tr-exec wc -c
        docker exec tr-exec head -c 3000000 /dev/zero | wc -c
        docker stop -t 5 tr-exec; docker exec tr-exec true; echo "code $?"
        docker rm tr-exec; docker exec tr-exec true; echo "code $?"
        "#,
    );
}

#[test]
fn attach_logs_and_wait_follow_a_container() {
    same(
        "attach, logs, wait",
        r#"
        docker run -d -i --name tr-att busybox sh -c 'for i in 1 2; do read line; echo "<$line>"; done; echo end; exit 4'
        printf 'a\nb\n' | docker attach tr-att >/dev/null; echo "code $?"
        docker wait tr-att; docker logs tr-att; docker start tr-att
        $DOCKER logs -f tr-att >/tmp/tr-att1.$$ & logs=$!
        $DOCKER wait tr-att >/tmp/tr-att2.$$ & waits=$!
        sleep 1; docker stop -t 0 tr-att; wait $waits; echo "code $?"; wait $logs; echo "code $?"; docker rm tr-att
        cat /tmp/tr-att1.$$ /tmp/tr-att2.$$; rm /tmp/tr-att1.$$ /tmp/tr-att2.$$
        docker run -d --name tr-log busybox sh -c 'for i in 1 2 3; do echo $i; echo e$i >&2; sleep 0.2; done; echo last; exit 2'
        docker logs -f tr-log 2>&1 | sort; docker logs --tail 1 tr-log 2>/dev/null; docker logs -t --tail 1 tr-log 2>/dev/null; docker logs --since 1h tr-log | wc -l
        docker wait tr-log tr-log; docker attach tr-log; echo "code $?"
        docker rm tr-log
        docker run -d --name tr-at2 busybox sh -c 'sleep 1; echo seen; exit 7'
        docker attach --no-stdin tr-at2; echo "code $?"; docker rm tr-at2
        "#,
    );
}

#[test]
fn events_tell_the_same_story() {
    // Our label is an attribute of a container's events: a known and documented difference.
    same(
        "events",
        r#"
        since=$(date +%s.%N)
        docker run --name tr-ev --label tr=1 busybox true; docker rename tr-ev tr-ev2; docker start tr-ev2; docker wait tr-ev2; docker rm tr-ev2
        docker volume create tr-ev-v; docker volume rm tr-ev-v
        until=$(date +%s.%N)
        docker events --since $since --until $until --filter label=tr=1 --format '{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.image}} {{.Actor.Attributes.exitCode}}'
        docker events --since $since --until $until --filter volume=tr-ev-v --format '{{.Action}}'
        docker events --since $since --until $until --filter container=tr-ev2 | sed 's/^[^ ]* //; s/selvedge\.internal\.wire={.*}, //'
        docker events --since $since --until $until --filter label=tr=1 --filter event=die --format '{{json .Actor.Attributes}}' | sed 's/"selvedge[^"]*":"[^"]*\(\\"[^"]*\)*",//g'
        $DOCKER events --filter container=tr-ev3 --format '{{.Action}}' >/tmp/tr-ev.$$ & pid=$!
        sleep 2; docker run --rm --name tr-ev3 busybox true
        until grep -q destroy /tmp/tr-ev.$$; do sleep 0.05; done; { kill $pid; wait $pid; } 2>/dev/null; cat /tmp/tr-ev.$$; rm /tmp/tr-ev.$$
        "#,
    );
}

#[test]
fn stats_and_top_show_the_processes() {
    same(
        "stats, top",
        r#"
        docker run -d --name tr-top busybox sleep 600
        docker top tr-top -o pid,comm,args | tail -n +2 | sed 's/^ *[0-9]* *//'
        docker top tr-top | head -n 1
        docker stats --no-stream --format '{{.Name}} {{.PIDs}}' tr-top
        docker stats --no-stream tr-top | head -n 1 | tr -s ' '
        docker stats --no-stream --no-trunc --format '{{.ID}}' tr-top
        docker rm -f tr-top; docker top tr-top; echo "code $?"; docker stats --no-stream tr-top; echo "code $?"
        "#,
    );
}

#[test]
fn files_are_copied_both_ways_and_diff_shows_them() {
    same(
        "cp, diff",
        r#"
        dir=$(mktemp -d /tmp/tr-cp.XXXXXX); cd $dir; mkdir -p in/sub; echo one >in/one; echo two >in/sub/two; head -c 2000000 /dev/zero >in/big
        docker run -d --name tr-cp busybox sleep 600
        docker cp in tr-cp:/tmp/; echo "code $?"; docker exec tr-cp find /tmp/in -type f | sort; docker exec tr-cp sh -c 'cat /tmp/in/one; wc -c </tmp/in/big'
        docker cp tr-cp:/tmp/in out; find out -type f | sort; cat out/sub/two
        docker cp tr-cp:/etc/passwd - | tar -t; tar -c in/one | docker cp - tr-cp:/tmp; docker exec tr-cp cat /tmp/in/one
        docker cp tr-cp:/no/such here; echo "code $?"; docker cp in/one tr-cp:/no/such/dir/ 2>&1 | grep -v level=error; docker cp in/one tr-none:/ 2>&1 | grep -v level=error
        docker exec tr-cp sh -c 'rm /etc/group; echo more >>/etc/passwd'
        docker diff tr-cp | sort
        docker rm -f tr-cp; docker diff tr-cp; cd /; rm -r $dir
        "#,
    );
}

#[test]
fn a_commit_runs_as_the_container_did() {
    same(
        "commit",
        r#"
        docker run --name tr-com -e A=b --label mine=1 busybox sh -c 'echo changed >/changed'
        docker commit -m message -a author tr-com tr-com-image
        docker run --rm tr-com-image cat /changed
        docker inspect tr-com-image --format '{{json .Config.Cmd}} {{json .Config.Entrypoint}} {{json .Config.Env}} {{json .Config.Labels}} {{.Comment}} {{.Author}} {{json .Config.Volumes}} {{json .Config.WorkingDir}}'
        docker history --no-trunc --format '{{.CreatedBy}} {{.Comment}}' tr-com-image
        docker commit -c 'CMD ["echo","by change"]' -c 'LABEL more=2' tr-com tr-com-image2; docker run --rm tr-com-image2
        docker inspect tr-com-image2 --format '{{json .Config.Labels}}'
        docker commit tr-none; echo "code $?"
        docker rm tr-com; docker rmi tr-com-image tr-com-image2 | sed 's/sha256:.*/sha256/' | sort
        "#,
    );
}

#[test]
fn images_and_filesystems_leave_and_come_back() {
    same(
        "export, save, load, import",
        r#"
        dir=$(mktemp -d /tmp/tr-io.XXXXXX); cd $dir
        docker run --name tr-io busybox sh -c 'echo x >/file'
        docker export tr-io -o fs.tar; tar -tf fs.tar | sort | md5sum; docker export tr-io | tar -xO file
        docker import -c 'CMD ["cat","/file"]' -m imported fs.tar tr-io-image; docker run --rm tr-io-image
        docker import - tr-io-image2 <fs.tar; docker run --rm tr-io-image2 cat /file
        docker save tr-io-image -o image.tar; tar -tf image.tar | sed 's/[0-9a-f]\{64\}/ID/' | sort
        docker rmi -f tr-io-image | sed 's/sha256:.*/sha256/'; docker load -i image.tar; docker load <image.tar; docker run --rm tr-io-image
        docker save tr-io-image tr-io-image2 | tar -t | wc -l
        echo rubbish | docker load; echo "code $?"; echo rubbish | docker import - tr-io-bad; echo "code $?"
        docker save tr-none >/dev/null; echo "code $?"; docker export tr-none >/dev/null; echo "code $?"
        docker rm tr-io; docker rmi tr-io-image tr-io-image2 | grep -c Untagged; docker rmi tr-io-bad >/dev/null 2>&1; cd /; rm -r $dir
        "#,
    );
}

#[test]
fn a_classic_build_runs_its_steps_inside_the_engine() {
    same(
        "build",
        r#"
        export DOCKER_BUILDKIT=0
        dir=$(mktemp -d /tmp/tr-build.XXXXXX); cd $dir
        printf 'FROM busybox\nARG WHO=nobody\nLABEL made=here\nCOPY data /data\nRUN echo "hi $WHO" >/hi && cat /hi /data\nRUN ls / | grep -c selvedge; true\nENTRYPOINT ["cat"]\nCMD ["/hi"]\n' >Dockerfile
        echo data >data; head -c 3000000 /dev/zero >large
        docker build --no-cache --build-arg WHO=me -t tr-build-image .; echo "code $?"
        docker run --rm tr-build-image; docker run --rm tr-build-image /data
        docker inspect tr-build-image --format '{{json .Config.Labels}} {{json .Config.Entrypoint}} {{json .Config.Cmd}}'
        docker build -q --no-cache -t tr-build-image . | wc -c
        tar -c . | docker build --no-cache -q -t tr-build-image -f Dockerfile - | wc -c
        printf 'FROM busybox\nRUN exit 9\n' | docker build --no-cache --force-rm -; echo "code $?"
        printf 'FROM\n' | docker build -; echo "code $?"
        printf 'FROM tr-none:none\n' | docker build --pull=false - >/dev/null 2>&1; echo "code $?"
        docker rmi -f tr-build-image | grep -c Untagged; cd /; rm -r $dir
        "#,
    );
}

#[test]
fn a_container_is_renamed_updated_paused_and_killed() {
    same(
        "rename, update, pause, kill",
        r#"
        docker run -d --name tr-life busybox sh -c 'trap "echo usr1" USR1; trap "echo term; exit 3" TERM; while :; do sleep 0.05; done'
        docker rename tr-life tr-life2; echo "code $?"; docker rename tr-none x; echo "code $?"; docker inspect tr-life2 --format '{{.Name}}'
        docker update --memory 64m --memory-swap 64m --restart on-failure:2 tr-life2; docker inspect tr-life2 --format '{{.HostConfig.Memory}} {{json .HostConfig.RestartPolicy}}'
        docker update --restart no tr-life2; docker update --memory 64m tr-none; echo "code $?"
        docker pause tr-life2; docker inspect tr-life2 --format '{{.State.Status}} {{.State.Paused}}'; docker pause tr-life2; echo "code $?"
        docker exec tr-life2 true; echo "code $?"; docker unpause tr-life2; docker unpause tr-life2; echo "code $?"
        docker kill -s USR1 tr-life2; until docker logs tr-life2 | grep -q usr1; do sleep 0.05; done
        docker kill -s TERM tr-life2; docker wait tr-life2; docker logs tr-life2
        docker start tr-life2; docker kill tr-life2; docker wait tr-life2; docker kill tr-life2; echo "code $?"; docker kill -s NOSUCH tr-life2; echo "code $?"
        docker rm tr-life2; docker rm tr-life2; echo "code $?"
        "#,
    );
}

#[test]
fn stop_gives_grace_and_restart_begins_anew() {
    same(
        "stop, restart",
        r#"
        docker run -d --name tr-stop busybox sh -c 'trap "echo asked; sleep 1; echo left; exit 6" TERM; echo up; while :; do sleep 0.05; done'
        until docker logs tr-stop | grep -q up; do sleep 0.05; done
        docker stop -t 20 tr-stop; docker logs tr-stop; docker inspect tr-stop --format '{{.State.ExitCode}} {{.State.Status}} {{.State.OOMKilled}} {{json .State.Error}}'
        docker start tr-stop; docker restart -t 20 tr-stop; docker inspect tr-stop --format '{{.State.Running}} {{.RestartCount}}'
        until [ $(docker logs tr-stop | grep -c up) = 3 ]; do sleep 0.05; done
        docker logs tr-stop; docker stop tr-stop; docker rm tr-stop
        docker run -d --name tr-stop2 busybox sh -c 'trap "" TERM; echo up; while :; do sleep 0.05; done'
        until docker logs tr-stop2 | grep -q up; do sleep 0.05; done
        docker stop -t 1 tr-stop2; docker inspect tr-stop2 --format '{{.State.ExitCode}}'; docker stop tr-stop2; echo "code $?"; docker restart tr-stop2; docker rm tr-stop2; echo "code $?"; docker rm -f tr-stop2
        docker stop tr-none; echo "code $?"; docker start tr-none; echo "code $?"; docker restart tr-none; echo "code $?"; docker wait tr-none; echo "code $?"
        "#,
    );
}

#[test]
fn prune_takes_away_what_it_should() {
    same(
        "prune",
        r#"
        for i in 1 2 3; do docker run --label tr-prune=1 busybox true; done
        docker container prune -f --filter label=tr-prune=1 | sed 's/space: .*/space/'
        docker volume create --label tr-prune=1 tr-prune-v; docker volume prune -f --filter label=tr-prune=1 | sed 's/space: .*/space/'
        docker network create --label tr-prune=1 tr-prune-n; docker network prune -f --filter label=tr-prune=1
        printf 'FROM busybox\nLABEL tr-prune=1\n' | DOCKER_BUILDKIT=0 docker build --no-cache -q - | wc -c
        docker image prune -f --filter label=tr-prune=1 | sed 's/space: .*/space/; s/sha256:.*/sha256/'
        docker container prune -f --filter label=tr-prune=2; docker container prune -f --filter nonsense=2; echo "code $?"
        "#,
    );
}

#[test]
fn volumes_and_networks_are_managed() {
    same(
        "volume, network",
        r#"
        docker volume create tr-vol; docker volume create --label a=b tr-vol2; docker volume ls --filter name=tr-vol --format '{{.Name}} {{.Driver}}'
        docker run --rm -v tr-vol:/data busybox sh -c 'echo kept >/data/file'; docker run --rm --mount type=volume,src=tr-vol,dst=/d,readonly busybox sh -c 'cat /d/file; touch /d/x'; echo "code $?"
        docker volume inspect tr-vol2 --format '{{.Name}} {{json .Labels}} {{.Scope}} {{.Options}}'; docker create --name tr-vol-c -v tr-vol:/data busybox >/dev/null; docker volume rm tr-vol; echo "code $?"
        docker inspect tr-vol-c --format '{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{end}} {{json .HostConfig.Binds}}'
        docker rm tr-vol-c; docker volume rm tr-vol tr-vol2; docker volume rm tr-vol; echo "code $?"; docker volume inspect tr-vol; echo "code $?"
        docker network create --subnet 172.31.77.0/24 --label a=b tr-net; docker network ls --filter name=tr-net --format '{{.Name}} {{.Driver}} {{.Scope}}'; docker network inspect tr-net --format '{{.Name}} {{json .IPAM.Config}} {{json .Labels}} {{.Internal}}'
        docker run -d --name tr-net-c --network tr-net --ip 172.31.77.9 busybox sleep 600; docker inspect tr-net-c --format '{{json .NetworkSettings.IPAddress}} {{(index .NetworkSettings.Networks "tr-net").IPAddress}} {{.HostConfig.NetworkMode}}'
        docker network inspect tr-net --format '{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}'
        docker network rm tr-net; echo "code $?"; docker rm -f tr-net-c; docker network rm tr-net; docker network inspect tr-net; echo "code $?"; docker network create tr-net --driver nonsense; echo "code $?"
        "#,
    );
}

#[test]
fn inspect_answers_every_question_the_same() {
    same(
        "inspect",
        r#"
        docker run -d --name tr-ins --hostname tr-ins -e A=b --label a=b -p 127.0.0.1:0:80 -v /tr-vol --tmpfs /t --memory 64m --restart no --workdir /tmp --user 0 --cap-add NET_ADMIN --add-host x:192.0.2.1 busybox sleep 600
        docker inspect tr-ins --format '{{.Name}} {{.Path}} {{json .Args}} {{.Platform}} {{.Driver}} {{.RestartCount}} {{json .State.Status}} {{json .State.Running}} {{json .State.ExitCode}} {{json .State.Error}}'
        docker inspect tr-ins --format '{{json .Config}}'; docker inspect tr-ins --format '{{json .HostConfig}}'
        docker inspect tr-ins --format '{{json .Mounts}}'; docker inspect tr-ins --format '{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{json $v.Aliases}} {{json $v.Links}}{{end}}'
        docker inspect tr-ins | sed 's/"Pid": .*/PID/; s/"IPAddress": .*/IP/; s/"MacAddress": .*/MAC/; s/"IPPrefixLen": .*/LEN/; s/"Gateway": .*/GATEWAY/; s/"HostPort": "[1-9].*/PORT/'
        docker inspect --size tr-ins --format '{{.SizeRw}}'; docker container inspect tr-ins --format '{{.Id}}'; docker inspect -f '{{.NoSuch}}' tr-ins; echo "code $?"
        docker inspect busybox --format '{{json .Config}} {{.Os}} {{.Architecture}} {{json .RootFS}} {{.Size}}'; docker inspect tr-ins busybox tr-none | grep -c '"Id"'; docker inspect bridge --format '{{.Name}} {{.Driver}}'
        docker rm -f -v tr-ins; docker inspect tr-ins; echo "code $?"; docker inspect --type container busybox; echo "code $?"; docker inspect --type nonsense busybox; echo "code $?"
        "#,
    );
}

#[test]
fn ps_lists_by_every_format_and_filter() {
    same(
        "ps",
        r#"
        docker run -d --name tr-ps-a --label tr-ps=a -p 127.0.0.1:31801:80 -v tr-ps-v:/v busybox sleep 600; docker create --name tr-ps-b --label tr-ps=b busybox echo a b c; docker run --name tr-ps-c --label tr-ps=c busybox sh -c 'exit 3'
        for filter in label=tr-ps name=tr-ps-a status=created exited=3 ancestor=busybox volume=tr-ps-v network=bridge before=tr-ps-c since=tr-ps-a publish=31801; do echo "-- $filter"; docker ps -a --filter label=tr-ps --filter $filter --format '{{.Names}}'; done
        docker ps -a --filter label=tr-ps --format '{{.ID}} {{.Image}} {{.Command}} {{.Names}} {{.Ports}} {{.Mounts}} {{.Networks}} {{.Label "tr-ps"}} {{.Labels}} {{.LocalVolumes}}'
        docker ps -a --no-trunc --filter label=tr-ps --format '{{.ID}} {{.Command}}'; docker ps -a -q --filter label=tr-ps; docker ps -n 1 --filter label=tr-ps --format '{{.Names}}'; docker ps -l --filter label=tr-ps --format '{{.ID}}'
        docker ps -a --filter label=tr-ps --format '{{json .}}' | sed 's/"CreatedAt":"[^"]*"/C/; s/"RunningFor":"[^"]*"/R/; s/"Status":"\([A-Z][a-z]*\)[^"]*"/"Status":"\1"/'
        docker ps -a -s --filter label=tr-ps --format '{{.Names}} {{.Size}}'; docker ps --filter nonsense=1; echo "code $?"
        docker rm -f tr-ps-a tr-ps-b tr-ps-c; docker volume rm tr-ps-v
        "#,
    );
}

#[test]
fn images_are_listed_tagged_and_removed() {
    same(
        "image",
        r#"
        docker tag busybox tr-img:one; docker image tag tr-img:one tr-img:two; docker image ls tr-img --format '{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}'; docker images -q --no-trunc tr-img; docker images --filter reference='tr-im*' --format '{{.Tag}}'
        docker run --rm tr-img:two echo ran; docker history -q tr-img:one | wc -l; docker image inspect tr-img:one --format '{{.RepoTags}}' | tr -d '[]' | tr ' ' '\n' | grep -c tr-img
        docker rmi tr-img:one; docker rmi tr-img:two; docker rmi tr-img:two; echo "code $?"; docker tag tr-none x; echo "code $?"; docker image inspect tr-none; echo "code $?"; docker history tr-none; echo "code $?"
        docker tag busybox 'UPPER:case'; echo "code $?"; docker run --rm 'UPPER'; echo "code $?"
        "#,
    );
}

#[test]
fn the_engine_describes_itself_the_same() {
    same(
        "info, version",
        r#"
        docker version --format '{{json .Server}}'; docker version --format '{{.Client.APIVersion}} {{.Server.APIVersion}}'
        docker info --format '{{.ID}} {{.Driver}} {{.ServerVersion}} {{.KernelVersion}} {{.DockerRootDir}} {{json .Plugins}} {{json .SecurityOptions}} {{json .Runtimes}} {{.CgroupDriver}}'
        DOCKER_API_VERSION=1.30 docker ps --filter name=tr-none; DOCKER_API_VERSION=1.24 docker version --format '{{.Client.APIVersion}}'; DOCKER_API_VERSION=1.24 docker run --name tr-old busybox sh -c 'echo old; exit 4'; echo "code $?"; docker rm tr-old
        DOCKER_API_VERSION=1.99 docker ps; echo "code $?"; docker system df >/dev/null; echo "code $?"; docker plugin ls; docker swarm ca; echo "code $?"; docker node ls; echo "code $?"
        "#,
    );
}

#[test]
fn errors_are_the_engines_own() {
    same(
        "errors",
        r#"
        docker run --rm --pull never tr-none true; echo "code $?"; docker create --pull never tr-none:9; echo "code $?"
        docker logs tr-none; echo "code $?"; docker attach tr-none; echo "code $?"; docker cp tr-none:/x .; echo "code $?"; docker rm tr-none; echo "code $?"
        docker create --name tr-err busybox >/dev/null; docker create --name tr-err busybox; echo "code $?"; docker run --name tr-err busybox true; echo "code $?"
        docker create --name 'bad name' busybox; echo "code $?"; docker rename tr-err 'bad/name'; echo "code $?"; docker run --rm --network tr-none busybox true; echo "code $?"
        docker run --nonsense busybox; echo "code $?"; docker run --rm --memory 1k busybox true; echo "code $?"; docker run --rm --user nosuchuser busybox true; echo "code $?"; docker run --rm -w relative busybox true; echo "code $?"
        docker run --rm -v /a:relative busybox true; echo "code $?"; docker run --rm -v relative/path:/a busybox true; echo "code $?"; docker run --rm --mount type=bind,src=/no/such/source,dst=/x busybox true; echo "code $?"
        docker run --rm -p 70000:1 busybox true; echo "code $?"; docker run --rm --device /dev/nosuch busybox true; echo "code $?"; docker run --rm --ip 10.1.2.3 busybox true; echo "code $?"
        docker run --rm --restart always --name tr-err2 busybox true; echo "code $?"; docker run --rm --cap-add NONSENSE busybox true; echo "code $?"; docker run --rm --runtime nonsense busybox true; echo "code $?"
        docker run --rm --network container:tr-none busybox true; echo "code $?"; docker run --rm --volumes-from tr-none busybox true; echo "code $?"; docker run --rm --link tr-none busybox true; echo "code $?"
        docker run --name tr-err4 busybox /no/such/program; echo "code $?"; docker rm tr-err4; docker run --name tr-err5 busybox /etc/passwd; echo "code $?"; docker rm tr-err5
        docker rm tr-err; docker rm -f tr-err2 2>/dev/null; docker nonsense; echo "code $?"
        "#,
    );
}
