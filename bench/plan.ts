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
export interface LoadPlan {
  /** Under which it reports. */
  readonly name: string;
  /** A producer sends to consumers; an asker sends one message and waits for its echo. */
  readonly role: "producer" | "consumer" | "asker" | "echo";
  /** Path of the side channel. */
  readonly side: string;
  /** An orchestrator is at the other end, which wants to know our dialect and may answer. */
  readonly greets: boolean;
  /** Data socket to connect to, or to listen on; if neither, connects to `VEECLE_IPC_SOCKET`. */
  readonly connect: string | undefined;
  readonly listen: string | undefined;
  /** What a producer or asker sends; for others its dialect is the one they speak. */
  readonly traffic: Traffic;
  /** Path on which a producer listens for acknowledgements. */
  readonly acks: string;
  /** Bytes of its own that a consumer acknowledges with one byte. */
  readonly ackBytes: number;
  readonly consumers: number;
  /** Whether each consumer gets everything, or they share it. */
  readonly spread: "copy" | "split";
}

/** Which socket's bytes go to which sockets; with a single target they also come back. */
export interface RelayPlan {
  readonly name: string;
  readonly side: string;
  readonly routes: readonly { readonly from: string; readonly to: readonly string[] }[];
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

export type Command =
  | { readonly kind: "arm"; readonly bytes: number } // consumer: answers at once, and when they came
  | { readonly kind: "send"; readonly bytes: number } // producer: answers when all are sent
  | { readonly kind: "ask"; readonly count: number } // asker: answers after so many round trips
  | { readonly kind: "status" } // consumer, asker: answers with what has come so far
  | { readonly kind: "spawn" } // spawner: answers with the pids
  | { readonly kind: "kill" }; // spawner: answers when all are gone

export interface Report {
  readonly name: string;
  readonly bytes?: number;
  readonly crc?: number;
  /** Round trip in microseconds. */
  readonly p50?: number;
  readonly p99?: number;
  readonly pids?: readonly number[];
}
