// Every bound of the orchestrator, each with its reason.
//
// Nothing here is computed and nothing here acts: the owner of a queue, a buffer or a table imports
// its bound from this file, so that "how much can this ever hold" is answered in one place.
// Sizes are in bytes, times in milliseconds, unless a name says otherwise.

const KIB = 1024;
const MIB = 1024 * KIB;

/** Open control connections. Leaves most file descriptors to instances; a refusal names the limit. */
export const MAX_CONTROL_CONNECTIONS = 256;

/** Of these, from one other machine: none can keep the rest out. */
export const MAX_ADDRESS_CONNECTIONS = 64;

/** Body of one control request. The largest legal request is far smaller; this stops a runaway peer. */
export const MAX_REQUEST_BYTES: number = 1 * MIB;

/** Nesting of a control request. The deepest legal one is 3; a parser's stack must not be the limit. */
export const MAX_JSON_DEPTH = 64;

/** Until the first complete request of a control connection, so that idle strangers hold no slot. */
export const FIRST_REQUEST_MS = 10_000;

/** Until a TLS handshake is done: two round trips, over a network that loses packets. */
export const HANDSHAKE_MS = 5_000;

/** Between two looks at files of certificates: a renewed one is taken when it has stayed for one. */
export const CERTIFICATE_LOOK_MS = 2_000;

/** Connections that have not shaken hands yet; a further one takes the place of the oldest. */
export const MAX_HANDSHAKES = 64;

/** Requests read ahead of the one in work, in bytes; beyond it the connection is not read. */
export const MAX_PIPELINED_BYTES: number = 2 * MIB;

/** Unsent response bytes of a control connection; beyond it further requests wait unread. */
export const MAX_RESPONSE_BACKLOG_BYTES: number = 4 * MIB;

/** One uploaded binary. Debug builds of embedded programs reach 100 MiB. */
export const MAX_UPLOAD_BYTES: number = 256 * MIB;

/** Uploads at once: what the disk may have to hold of those that come to nothing, 4 GiB. */
export const MAX_UPLOADS = 16;

/** Of these, from one other machine: none can keep the rest out. */
export const MAX_ADDRESS_UPLOADS = 8;

/** Silence within an upload after which the client is taken for dead. */
export const UPLOAD_IDLE_MS = 30_000;

/** Largest body of a native frame that the format can carry: its first byte must stay zero. */
export const MAX_NATIVE_FRAME_BYTES: number = 16 * MIB - 1;

/** Default bound of one frame or line from an instance: a few of them must fit into a queue. */
export const MAX_FRAME_BYTES: number = 1 * MIB;

/** Longest line, without its newline, that existing runtimes accept (their codec's fixed limit). */
export const MAX_VEECLE_LINE_BYTES = 2048;

/** Largest datagram between orchestrators: the fixed receive buffer of the existing one. */
export const MAX_DATAGRAM_BYTES = 2048;

/** Type name in UTF-8. Rust type names of deep generics stay below a few hundred bytes. */
export const MAX_TYPE_NAME_BYTES = 1024;

/** Unsent bytes per link target. Holds 40,000 small messages: a pause of 100 ms at full speed. */
export const MAX_QUEUE_BYTES: number = 4 * MIB;

/** Unsent bytes over all targets: what a small machine can spare. */
export const MAX_TOTAL_QUEUE_BYTES: number = 256 * MIB;

/** A view of a chunk is queued as it is if it pins at most this many times its own size. */
export const MAX_PIN_RATIO = 2;

/** Frames up to this size are gathered into one write per target: a system call costs more. */
export const GATHER_FRAME_BYTES: number = 16 * KIB;

/** Size of the blocks in which small frames are gathered; a write of this size is efficient. */
export const GATHER_BLOCK_BYTES: number = 64 * KIB;

/** After connecting, time for an instance's first byte to tell its dialect before anything is sent. */
export const DIALECT_WAIT_MS = 50;

/** Refused frames of one instance that are logged per second and cause; the rest is only counted. */
export const LOG_INTERVAL_MS = 1_000;

/** From the stop signal to SIGKILL. */
export const STOP_GRACE_MS = 5_000;

/** Processes that are found killed within this time may have been killed by the kernel together. */
export const SAME_KILLS_MS = 1_000;

/** Between two looks whether the file of the state has its name still, for answers to `Info`. */
export const STATE_LOOK_MS = 1_000;

/** Pause between two looks at a process group that is ending. */
export const GROUP_POLL_MS = 10;

/** How long a socket may be served whose lock is free: until its daemon, which was killed, is gone. */
export const LEFT_SOCKET_MS = 1_000;
export const LEFT_SOCKET_POLL_MS = 10;

/** After SIGKILL, until a process group that still has members is reported as a failed stop. */
export const KILL_WAIT_MS = 5_000;

/** One line of captured output; a longer one is cut into pieces of this size. */
export const MAX_OUTPUT_LINE_BYTES: number = 64 * KIB;

/** What a pipe for output holds, where the system gives so much: a program waits less often. */
export const WIDE_PIPE_BYTES: number = 256 * KIB;

/** Pipes of that size. All pipes of a user share 64 MiB; beyond it the system gives each of them 8 KiB. */
export const MAX_WIDE_PIPES = 128;

/** Pieces in which a line without an end is kept until they are joined: each is an object of its own. */
export const MAX_LINE_PIECES = 64;

/** Unsent output of one follower; beyond it, its oldest lines are dropped and it is told how many. */
export const MAX_FOLLOWER_BYTES: number = 1 * MIB;

/** Captured output that becomes one record on disk, before what was left of the chunk before it. */
export const MAX_RECORD_BYTES: number = 256 * KIB;

/** Default size and number of the files that hold the output of one instance. */
export const OUTPUT_FILE_BYTES: number = 10 * MIB;
export const OUTPUT_FILES = 3;

/** Smallest size of such a file that may be asked for: the largest record fits in three times. */
export const MIN_OUTPUT_FILE_BYTES: number = 1 * MIB;

/** Output of one instance that waits for the disk: what a disk takes in a few milliseconds. */
export const MAX_SPOOL_BYTES: number = 2 * MIB;

/** The same over all instances; with many that wait, each may hold its share, but at least the minimum. */
export const MAX_TOTAL_SPOOL_BYTES: number = 32 * MIB;
export const MIN_SPOOL_BYTES: number = 64 * KIB;

/** Counted for each piece of output that waits, besides its bytes, so that tiny ones are bounded too. */
export const RECORD_OVERHEAD_BYTES = 512;

/** How long a child may be held up by a slow disk, less what a timer may be late: 100 ms are promised. */
export const SPOOL_PATIENCE_MS = 75;

/** Pause before output is offered again to a disk that took none: within 1 s it is written again. */
export const SPOOL_RETRY_MS = 500;

/** At the daemon's end, time to read what programs that are gone have left in their pipes. */
export const LAST_OUTPUT_MS = 200;

/** Captured output is read back in blocks of this size, one for each instance that is read. */
export const HISTORY_BLOCK_BYTES: number = 16 * KIB;

/** Unsent telemetry; the oldest lines are dropped first. */
export const MAX_TELEMETRY_BYTES: number = 8 * MIB;

/** First pause before telemetry or another connection is tried again; doubles up to the maximum. */
export const RECONNECT_MIN_MS = 100;
export const RECONNECT_MAX_MS = 5_000;

/** At the daemon's end, time to hand over telemetry that is still queued. */
export const FLUSH_MS = 1_000;

/** Registered instances. Each holds a listening socket and, running, about five descriptors. */
export const MAX_INSTANCES = 1_024;

/** Links in all: eight for each instance. */
export const MAX_LINKS = 8_192;

/** Distinct type names that are kept decoded; a further one takes the place of an older one. */
export const TYPE_TABLE_SLOTS = 4_096;

/** Length of `sun_path` in Linux, less its terminating zero. */
export const MAX_SOCKET_PATH_BYTES = 107;

/** Unwritten log bytes when nobody reads standard error, or its disk is full; beyond it, lines are dropped and counted. */
export const MAX_LOG_BACKLOG_BYTES: number = 1 * MIB;

/** CLI: time to connect, and time to an answer of a daemon that is alive. */
export const CONNECT_TIMEOUT_MS = 1_000;
export const ANSWER_TIMEOUT_MS = 5_000;

/** CLI: the longest time that can be asked for; timers, dates and sums take it. */
export const MAX_DURATION_MS: number = 100_000 * 86_400_000;

/** CLI: so long an answer may take at least, however short a --timeout is: a busy machine needs it. */
export const LEAST_ANSWER_MS = 500;

/** One text within a log record, in UTF-16 units; a request may carry a megabyte. */
export const MAX_LOG_TEXT = 4_096;

/** Causes whose log lines are limited one by one; further ones share a limit. */
export const MAX_LOG_CAUSES = 64;

/** Client: body of one frame of an upload; a few of them fill a socket's buffer. */
export const UPLOAD_CHUNK_BYTES: number = 256 * KIB;

/** After our side of a connection ended, time for the peer to end its own. */
export const LINGER_MS = 1_000;

/** Control requests of one instance that wait for their turn; beyond it the instance is not read. */
export const MAX_PENDING_CONTROL = 64;

/** Between two notices of one link: a program that loses messages must not drown in being told so. */
export const NOTICE_INTERVAL_MS = 1_000;

/**
 * What the daemon has to say to one instance and it has not read: beyond that, notices are left out.
 * Some hundreds of them say what there is to say.
 */
export const MAX_UNREAD_NOTICE_BYTES: number = 64 * KIB;

/** Pause before log lines that nobody took are offered again. */
export const LOG_RETRY_MS = 50;

/** Text of an error to an instance: with every character escaped it still fits into a Veecle line. */
export const MAX_CONTROL_ERROR = 320;

/** Reading from one instance in one turn of the event loop, while it sends alone. */
export const READ_TURN_MS = 0.25;

/** The same while others send too: a round trip of theirs waits twice for it, and for the writing. */
export const SHARED_READ_TURN_MS = 0.06;

/** After somebody else has sent something, how long an instance does not count as sending alone. */
export const SHARED_TURNS_MS = 10;

/** What is read in one turn in any case; the least that is worth one. */
export const MIN_SLICE_BYTES: number = 2 * KIB;

/** Of a line of output, what the answer of a command shows that is about more: `logs` prints all of it. */
export const MAX_SHOWN_LINE = 500;

/** Of standard error, what is kept of an instance to say why it ended. */
export const LAST_WORDS_BYTES = 300;

/** Silence of a TCP connection before the system asks whether its peer is still there. */
export const KEEP_ALIVE_MS = 30_000;

/** Name of an instance: it fits into a table's column. */
export const MAX_NAME_LENGTH = 64;

/** Arguments of an instance in all; Linux takes 128 KiB for one and 2 MiB with the environment. */
export const MAX_ARGUMENTS_BYTES: number = 64 * KIB;

/** Environment of an instance in all, for the same reason. */
export const MAX_ENVIRONMENT_BYTES: number = 64 * KIB;

/** A path in Linux, without its terminating zero. */
export const MAX_PATH_BYTES = 4_095;

/** First pause before a restart; doubles with every further one up to the maximum. */
export const RESTART_DELAY_MS = 100;
export const RESTART_MAX_DELAY_MS = 30_000;

/** By how much a pause before a restart varies, so that what failed together does not return together. */
export const RESTART_JITTER = 0.25;

/** So many runs that end within this time, and an instance has failed: somebody has to look at it. */
export const MAX_RESTARTS = 10;
export const RESTART_WINDOW_MS = 60_000;

/** A process that ran this long was well: the next pause is the first again. */
export const RESTART_RESET_MS = 10_000;

/** Longest grace of a stop: a program that needs more is being operated on, not stopped. */
export const MAX_STOP_GRACE_MS = 600_000;

/** Events or lines of output that one request may ask for; more is asked for by time. */
export const MAX_QUERY_ITEMS = 1_000_000;

/** After a process has ended, until what has left its group is looked for; many exits share a look. */
export const SWEEP_WAIT_MS = 1_000;

/** Until what could not be ended is tried again: it waits for a disk, or for somebody who may end it. */
export const SWEEP_RETRY_MS = 30_000;

/** Pause between two looks through all processes for what is left of one that is being stopped. */
export const STRAY_POLL_MS = 100;

/** From a change that nobody waits for to its commit: many share one, and few are lost by a crash. */
export const COMMIT_WAIT_MS = 20;

/** Until a commit that failed is tried again: a full disk is noticed to have room within a second. */
export const COMMIT_RETRY_MS = 500;

/** Requests of one connection that came together are carried out in one turn of the event loop so long. */
export const CONTROL_TURN_MS = 5;

/** Answers of one connection that wait for a commit: beyond it a commit saves nothing more. */
export const MAX_HELD_ANSWERS = 128;

/** Most files of output that may be asked for. */
export const MAX_OUTPUT_FILES = 99;

/** What of the process table is read in one turn of the event loop: about a hundred processes. */
export const TABLE_SLICE_MS = 2;

/** A younger process may be about to run its program: what its environment says is not kept. */
export const YOUNG_PROCESS_MS = 1_000;

/** Looks at /proc within one snapshot, each for what the last one was too early for. */
export const MAX_TABLE_LOOKS = 4;

/** Looks within one snapshot, 1 ms apart, at a process that is about to run another program. */
export const MAX_EXEC_LOOKS = 20;

/** How long the number of a group without its leader is trusted: numbers do not come round so soon. */
export const HELD_NUMBER_MS = 200;

/** While a tree is frozen, looks for what was forked meanwhile; after these, what is found is killed. */
export const MAX_FREEZE_LOOKS = 8;

/** Processes that a message names; the rest is counted. */
export const MAX_NAMED_PROCESSES = 10;

/** A guard that ended after this long was well: another one takes its place at once. */
export const GUARD_LASTED_MS = 1_000;

/** Pause before a guard that ended earlier is replaced; doubles up to the maximum. */
export const GUARD_RETRY_MS = 100;
export const GUARD_RETRY_MAX_MS = 60_000;

/** What a guard has not read; a guard that is stopped is replaced. A thousand starts fit in it. */
export const MAX_GUARD_BACKLOG_BYTES: number = 64 * KIB;

/** Events in the state: weeks of a quiet daemon, and read whole within some milliseconds. */
export const MAX_EVENTS = 10_000;

/** Numbers of events that are not given again after a killed daemon: more than it can tell in seconds. */
export const SKIPPED_EVENTS = 100_000;

/** Age of an event in the state: who looks for the cause of something looks within a month. */
export const MAX_EVENT_AGE_MS: number = 30 * 24 * 3_600_000;

/** Detail of one event as JSON; with it the history stays below 40 MiB, however long causes are. */
export const MAX_EVENT_BYTES: number = 4 * KIB;

/** Events between two looks at what is too old or too much, and the longest time between them. */
export const EVENT_PRUNE_COUNT = 1_000;
export const EVENT_PRUNE_MS: number = 24 * 3_600_000;

/** Room on the disk that is given up to start on a full one: a log, its index, and the first commits. */
export const STATE_RESERVE_BYTES: number = 128 * KIB;

/** Write-ahead log of the state; beyond it it is moved into the file while everything goes on, and at
 * twice that at once. A longer one would hold room that a full disk needs. */
export const STATE_LOG_BYTES: number = 128 * KIB;

/** The same while the disk stalls: beyond it a commit waits for the disk. */
export const MAX_STATE_LOG_BYTES: number = 4 * MIB;

/** Wait for another program that locks the state: everything waits with us. */
export const STATE_BUSY_MS = 100;

/** What of an uploaded binary is read at a time, to hash it while other work goes on in between. */
export const HASH_CHUNK_BYTES: number = 1 * MIB;

/** A file changed more recently than this may change again without a new time: clocks of files are coarse. */
export const FILE_CLOCK_MS = 50;

/** The state in all: twice what the most instances, links and events with the longest settings need. */
export const MAX_STATE_BYTES: number = 512 * MIB;

/** One file of a manifest, in characters. As many instances and links as are allowed take half of it. */
export const MAX_MANIFEST_LENGTH: number = 1 * MIB;

/** Files of one manifest, with all that it includes. */
export const MAX_MANIFEST_FILES = 64;

/** A token: enough that nobody guesses it, and no more than a line of a file that was meant. */
export const MIN_TOKEN_LENGTH = 16;
export const MAX_TOKEN_BYTES: number = 4 * KIB;

/** Other orchestrators that a daemon can be told to listen to: names are resolved once, at its start. */
export const MAX_PEERS = 1_024;

/** Generations between a process that connects and the instance: wrappers nest a few deep. */
export const MAX_DESCENT = 64;

/**
 * File descriptors that are left when instances are no longer added or started: what runs has to
 * connect, print and be started again, and somebody has to be able to stop it.
 */
export const RESERVED_DESCRIPTORS = 64;

/** File descriptors that are left when control connections are no longer taken: for what runs. */
export const CONTROL_RESERVED_DESCRIPTORS = 32;

/** How long the number of control connections is held when descriptors were scarce: then it is tried again. */
export const DESCRIPTORS_SCARCE_MS = 500;

/** Descendants that are looked at before a stop's signal: a few ms; a bomb has other traces. */
export const MAX_REMEMBERED = 256;

/**
 * Processes that are looked at for their parents before a stop's signal, where the kernel does not
 * list children: some 20 ms, in which nothing else is done. The newest first; others have other traces.
 */
export const MAX_PARENTS_LOOK = 1_024;

/** So many were started, and then none for so long: the daemon is at rest, and gives back what that took.
 * Fewer leave little that is not needed again at once. */
export const REST_STARTS = 50;
export const REST_MS = 2_000;

/** Not more often than that: it costs a millisecond, and some faults afterwards. */
export const REST_INTERVAL_MS = 60_000;

/** A SIGINT so soon after the first one is the same Ctrl-C, and no second one: `bun run` passes on what
 * the terminal has sent already. */
export const SAME_KEY_MS = 500;
