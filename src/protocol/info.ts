// What the orchestrator tells about itself: the shapes of its answers and of the items of its streams.
//
// Keys are those of the wire. Existing clients read a few of them and ignore the rest.

import { isObject } from "../json.ts";
import type { State } from "../lifecycle.ts";
import type { InstanceId, OnFull, Priority } from "../model.ts";
import type { RestartPolicy, StopSignal } from "../settings.ts";

/** The accounts of one link, in messages: routed = delivered + dropped (all reasons) + queued. */
export interface LinkInfo {
  readonly type_name: string;
  /** The only instance whose messages it takes; null: any. */
  readonly from: string | null;
  readonly to: string;
  /** The bound of its queue: a size (`4MiB`) or a number of messages (`100`). */
  readonly queue: string;
  readonly on_full: OnFull;
  /** The manifest that it belongs to; null: none. */
  readonly owner: string | null;
  readonly routed: number;
  readonly delivered: number;
  readonly queued: number;
  readonly dropped: Readonly<Record<string, number>>;
  /** Only where it leads to another orchestrator, over UDP: then "delivered" means sent. */
  readonly peer?: PeerInfo;
}

/** What is known of another orchestrator; ms since the epoch, null: never. */
export interface PeerInfo {
  /** When something came from there. */
  readonly heard: number | null;
  /** When its host, or a router, said that nobody listens there. */
  readonly refused: number | null;
  /** When one said so of this address or another one. */
  readonly suspected: number | null;
}

/** One instance in the answer to `Info`; existing clients read the first three keys. */
export interface RuntimeInfo {
  readonly running: boolean;
  readonly binary: string;
  readonly privileged: boolean;
  readonly name: string;
  readonly state: State;
  /** Why it is in this state, in words, if there is more to say than the state says. */
  readonly reason: string | null;
  readonly pid: number | null;
  /** When its process was started, and when it will be; ms since the epoch. */
  readonly started: number | null;
  readonly due: number | null;
  /** How often it was started again by its policy, since somebody started it. */
  readonly restarts: number;
  readonly args: readonly string[];
  /** The names of its own variables: values may be secret. */
  readonly env: readonly string[];
  readonly cwd: string | null;
  readonly restart: RestartPolicy;
  readonly restart_delay_ms: number;
  readonly stop_signal: StopSignal;
  readonly stop_grace_ms: number;
  readonly priority: Priority | null;
  readonly owner: string | null;
  /** SHA-256 of its uploaded program. */
  readonly hash: string | null;
  readonly connected: boolean;
  readonly dialect: "veecle" | "native" | null;
  /** Not read from, because a link with the policy `block` has no room. */
  readonly held: boolean;
  /** How the last process ended; null: it never ran, or runs for the first time. */
  readonly exit: { readonly code: number } | { readonly signal: string } | null;
  /** That end was asked for, by a stop. */
  readonly exit_by_stop: boolean;
  /** Messages received from it: routed to a link + unlinked + refused. */
  readonly messages: {
    readonly received: number;
    readonly unlinked: number;
    readonly refused: number;
  };
}

/** The answer to `Info`; existing clients read `runtimes` and `links`. */
export interface Info {
  readonly runtimes: Readonly<Record<InstanceId, RuntimeInfo>>;
  readonly links: Readonly<Record<string, readonly string[]>>;
  /** Every link with its source and its accounts. */
  readonly routes: readonly LinkInfo[];
  readonly telemetry: {
    readonly sent: number;
    readonly dropped: number;
    readonly queued: number;
  } | null;
  /** Datagrams of other orchestrators: routed = received - unlinked - refused; and of strangers. */
  readonly peers: {
    readonly received: number;
    readonly unlinked: number;
    readonly refused: number;
    readonly strangers: number;
  };
  /** The file of the state; null: nothing is remembered after the daemon's end. */
  readonly state: string | null;
  /** That file, if it was removed or replaced while the daemon uses it. */
  readonly lost_state: string | null;
  readonly pid: number;
  /** Of the daemon's program. */
  readonly version: string;
  /** Of the daemon's clock, in milliseconds since the epoch. */
  readonly time: number;
}

/** One event, as an item of the stream. */
export interface EventInfo {
  /** Grows by one or more from each event to the next. */
  readonly seq: number;
  /** Milliseconds since the epoch. */
  readonly time: number;
  readonly kind: string;
  readonly id: InstanceId | null;
  readonly name: string | null;
  readonly detail: Readonly<Record<string, unknown>>;
}

/** Whether an item of a stream is an event, perhaps of a kind that we do not know. */
export function isEventInfo(item: unknown): item is EventInfo {
  return (
    isObject(item) &&
    typeof item["time"] === "number" &&
    typeof item["kind"] === "string" &&
    isObject(item["detail"])
  );
}

/** One line of output, as an item of the stream. */
export interface LineInfo {
  readonly id: InstanceId;
  readonly time: number;
  /** Null for a note of ours in place of lines that are missing. */
  readonly stream: "stdout" | "stderr" | null;
  /** Without its newline. */
  readonly line: string;
}

/** Whether an item of a stream is a line of output. */
export function isLineInfo(item: unknown): item is LineInfo {
  return (
    isObject(item) &&
    typeof item["id"] === "string" &&
    typeof item["time"] === "number" &&
    typeof item["line"] === "string"
  );
}

/** What the processes of one instance use now. */
export interface ResourcesInfo {
  readonly processes: number;
  readonly threads: number;
  readonly cpu_ms: number;
  readonly resident_bytes: number;
  /** Null if they are not ours to see. */
  readonly open_files: number | null;
}
