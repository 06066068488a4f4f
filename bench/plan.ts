// What the bench tells its helper programs, and what they answer: plans in files, then JSON lines
// over a Unix socket beside the data (the side channel). No byte of it passes through what is measured.

import type { Traffic } from "./bytes.ts";

/** Bytes that a producer may have under way: less than any queue's bound, so that nothing is dropped. */
export const WINDOW_BYTES: number = 2 * 1024 * 1024;

/** A consumer acknowledges in steps of this size, with one byte each. */
export const ACK_BYTES: number = 128 * 1024;

/** Most that a producer offers in one write; the kernel takes less of it. */
export const BLOCK_BYTES: number = 256 * 1024;

/** What one run of `load.ts` is and does. */
export type LoadPlan =
  ProducerPlan | ConsumerPlan | AskerPlan | EchoPlan | PacerPlan | CollectorPlan | SilentPlan;

interface CommonPlan {
  /** Under which it reports. */
  readonly name: string;
  /** Path of the side channel. */
  readonly side: string;
  /**
   * Who is at the other end and wants to be greeted: an orchestrator wants to know our dialect and
   * may answer, `nats-server` what we subscribe to.
   */
  readonly greets?: "orchestrator" | "nats-server" | undefined;
  /** Data socket: a path, or a port of this machine; if neither, `VEECLE_IPC_SOCKET`. */
  readonly connect?: string | number | undefined;
  /** Listens on this path instead. */
  readonly listen?: string | undefined;
}

/** Sends to consumers. */
export interface ProducerPlan extends CommonPlan {
  readonly role: "producer";
  readonly traffic: Traffic;
  /** Path on which it listens for acknowledgements; undefined: it waits for none, it floods. */
  readonly acks: string | undefined;
  readonly consumers: number;
  /** Whether each consumer gets everything, or they share it. */
  readonly spread: "copy" | "split";
}

/** Counts, checksums and acknowledges what comes. */
export interface ConsumerPlan extends CommonPlan {
  readonly role: "consumer";
  /** What it gets. */
  readonly traffic: Traffic;
  /** The producer's path for acknowledgements, if it listens for any. */
  readonly acks: string | undefined;
  /** Bytes of its own that it acknowledges with one byte. */
  readonly ackBytes: number;
}

/** Sends one message, waits for its echo, and sends the next one after a pause. */
export interface AskerPlan extends CommonPlan {
  readonly role: "asker";
  readonly traffic: Traffic;
  readonly pauseMs: number;
}

/** Writes back what comes. */
export interface EchoPlan extends CommonPlan {
  readonly role: "echo";
  readonly traffic: Traffic;
}

/** Prints lines of telemetry, so many a second. */
export interface PacerPlan extends CommonPlan {
  readonly role: "pacer";
  readonly lineBytes: number;
  readonly linesPerSecond: number;
}

/** A telemetry server: takes what comes over any number of TCP connections, and reads it fast. */
export interface CollectorPlan extends CommonPlan {
  readonly role: "collector";
}

/** Connects, tells its dialect, and never reads. */
export interface SilentPlan extends CommonPlan {
  readonly role: "silent";
  readonly traffic: Traffic;
}

/** Which socket's bytes go to which sockets; with a single target they also come back. */
export interface RelayPlan {
  readonly name: string;
  readonly side: string;
  readonly routes: readonly {
    readonly from: string;
    /** Paths to listen on, or ports of this machine to connect to. */
    readonly to: readonly (string | number)[];
  }[];
}

/** What `spawner.ts` starts. */
export interface SpawnPlan {
  readonly name: string;
  readonly side: string;
  readonly programs: readonly {
    readonly path: string;
    readonly env: Readonly<Record<string, string>>;
  }[];
}

/** What `bare.ts` starts, and how. */
export interface KeeperPlan extends SpawnPlan {
  /** What ends them. */
  readonly signal: NodeJS.Signals;
  /** Whether it listens on the socket of each. */
  readonly listens: boolean;
  /** Where it answers every request with so many bytes. */
  readonly answers: { readonly path: string; readonly bytes: number } | undefined;
}

export type Command =
  | { readonly kind: "arm"; readonly bytes: number } // consumer: answers at once, and when they came
  | { readonly kind: "send"; readonly bytes: number } // producer: answers when all are sent
  | { readonly kind: "flood" } // producer, pacer: sends until it is halted
  | { readonly kind: "halt" } // producer, pacer: answers when its last message is sent
  | { readonly kind: "ask"; readonly count: number } // asker: answers after so many round trips
  | { readonly kind: "status" } // consumer, asker, collector: answers with what has come so far
  | { readonly kind: "spawn" } // spawner, bare: answers with the pids
  | { readonly kind: "kill" }; // spawner, bare: answers when all are gone

export interface Report {
  readonly name: string;
  readonly bytes?: number;
  readonly crc?: number;
  /** Round trip in microseconds. */
  readonly p50?: number;
  readonly p99?: number;
  readonly pids?: readonly number[];
  /** On which a collector listens. */
  readonly port?: number;
  /** What came over each connection of a collector. */
  readonly streams?: readonly { readonly bytes: number; readonly crc: number }[];
}
