// Server side of the control socket: who comes in, how many at once, and who is turned away.

import { type Access, otherMachine, type Verdict } from "./control/access.ts";
import { type ConnectionOptions, ControlConnection } from "./control/connection.ts";
import { OrchestratorError } from "./errors.ts";
import {
  CONTROL_RESERVED_DESCRIPTORS,
  DESCRIPTORS_SCARCE_MS,
  MAX_ADDRESS_CONNECTIONS,
  MAX_CONTROL_CONNECTIONS,
} from "./limits.ts";
import { encodeError } from "./protocol.ts";
import { type Connection, DISCARD, type StreamHandlers } from "./socket.ts";

export interface ControlOptions extends ConnectionOptions {
  /** From a file descriptor of this number on, they are scarce: there are no more connections then. */
  readonly maxDescriptor: number;
  readonly access: Pick<Access, "judge">;
}

const CROWDED = new OrchestratorError(
  "limit_exceeded",
  `Cannot accept connection: ${MAX_CONTROL_CONNECTIONS} are open, which is the limit; try again later`,
);

const OUT_OF_DESCRIPTORS = new OrchestratorError(
  "limit_exceeded",
  `Cannot accept connection: only ${CONTROL_RESERVED_DESCRIPTORS} file descriptors are left, which are kept for what runs; try again later`,
);

/** Clients that are turned away for want of descriptors and may linger for a moment all the same. */
const LINGERERS = 16;

/** Accepts control connections, up to a limit. */
export class ControlServer {
  readonly #options: ControlOptions;
  /** Each with the address of the other machine, if it comes from one. */
  readonly #open: Map<ControlConnection, string | undefined> = new Map();
  /** Connections of which it is not known yet who they are: those with a place, and those beyond. */
  readonly #judged: { placed: number; unplaced: number } = { placed: 0, unplaced: 0 };
  /** How many connections there may be now. */
  #most = MAX_CONTROL_CONNECTIONS;
  #cancelBound: (() => void) | undefined;
  #nextId = 0;

  constructor(options: ControlOptions) {
    this.#options = options;
  }

  accept(connection: Connection): StreamHandlers {
    const { maxDescriptor } = this.#options;
    const { descriptor = 0 } = connection;
    if (descriptor >= maxDescriptor) this.#bound();
    // Who lingers holds a descriptor: a few may, so that they read why.
    const mayLinger = descriptor < maxDescriptor + LINGERERS;
    const from = otherMachine(connection.origin);
    if (from !== undefined && this.#countFrom(from) >= MAX_ADDRESS_CONNECTIONS) {
      return turnAway(connection, monopoly(from), mayLinger); // before anybody makes room for it
    }
    const isCrowded = this.#isCrowded;
    // Where there is no room, somebody has to make it, for each who may turn out to be served.
    if (isCrowded && this.#judged.unplaced >= this.#countSilent()) {
      return turnAway(connection, this.#crowded(), mayLinger);
    }
    const { origin } = connection;
    const verdict = origin === undefined ? OURS : this.#options.access.judge(origin);
    if (!(verdict instanceof Promise)) {
      return this.#begin(connection, verdict, !isCrowded, mayLinger);
    }
    if (isCrowded && !mayLinger) {
      verdict.catch(this.#options.onFault);
      return turnAway(connection, this.#crowded(), false);
    }
    // Until it is known who it is, nothing is looked at. (To pause would end a TLS handshake for good.)
    const early: Buffer[] = [];
    const kind = isCrowded ? "unplaced" : "placed";
    this.#judged[kind]++;
    let handlers: StreamHandlers | undefined;
    let hasEnded = false;
    let isClosed = false;
    verdict
      .finally(() => this.#judged[kind]--)
      .then((known) => {
        if (isClosed) return;
        handlers = this.#begin(connection, known, !isCrowded, mayLinger);
        for (const chunk of early) handlers.data(chunk);
        if (hasEnded) handlers.end();
        connection.resume();
      })
      .catch((error: unknown) => {
        this.#options.onFault(error);
        connection.close();
      });
    return {
      data: (chunk) => {
        if (handlers !== undefined) handlers.data(chunk);
        else {
          early.push(chunk);
          connection.pause(); // one chunk is enough to know that it has something to say
        }
      },
      drain: () => handlers?.drain(),
      end: () => {
        hasEnded = true;
        handlers?.end();
      },
      close: () => {
        isClosed = true;
        handlers?.close();
      },
    };
  }

  #countFrom(address: string): number {
    return [...this.#open.values()].filter((from) => from === address).length;
  }

  get #isCrowded(): boolean {
    return this.#open.size + this.#judged.placed >= this.#most;
  }

  #countSilent(): number {
    return [...this.#open.keys()].filter((control) => !control.hasAsked).length;
  }

  #crowded(): OrchestratorError {
    return this.#most < MAX_CONTROL_CONNECTIONS ? OUT_OF_DESCRIPTORS : CROWDED;
  }

  /** Descriptors are scarce: for a moment, there are no more connections than now. */
  #bound(): void {
    this.#most = Math.min(this.#most, this.#open.size + this.#judged.placed);
    this.#cancelBound?.();
    this.#cancelBound = this.#options.after(DESCRIPTORS_SCARCE_MS, () => {
      this.#most = MAX_CONTROL_CONNECTIONS;
    });
  }

  /** The oldest client that has never asked for anything makes room for one that may. */
  #displace(reason: OrchestratorError): boolean {
    for (const control of this.#open.keys()) {
      if (control.hasAsked) continue;
      this.#open.delete(control);
      control.displace(reason);
      return true;
    }
    return false;
  }

  /** Nobody makes room for who is not served. */
  #begin(
    connection: Connection,
    verdict: Verdict,
    hasPlace: boolean,
    mayLinger: boolean,
  ): StreamHandlers {
    if (verdict.kind === "refused") {
      const { error, by } = verdict;
      this.#options.log.warn("run:connection", "refused a connection", {
        "connection.peer": connection.peer,
        by,
        error: error.message,
      });
      return turnAway(connection, error, mayLinger);
    }
    const refusal = this.#crowded();
    if (!hasPlace && this.#isCrowded && !this.#displace(refusal)) {
      return turnAway(connection, refusal, mayLinger);
    }
    const control = new ControlConnection(this.#options, connection, this.#nextId++, verdict);
    this.#open.set(control, otherMachine(connection.origin));
    return {
      data: (chunk) => control.receive(chunk),
      drain: () => control.drain(),
      end: () => control.endInput(),
      close: () => {
        this.#open.delete(control);
        control.closed();
      },
    };
  }

  /** Ends every connection, after the responses that are still unsent. */
  close(): void {
    this.#cancelBound?.();
    for (const control of this.#open.keys()) control.finish();
  }
}

function monopoly(address: string): OrchestratorError {
  return new OrchestratorError(
    "limit_exceeded",
    `Cannot accept connection: ${MAX_ADDRESS_CONNECTIONS} are open from ${address}, which is the limit for one machine; try again later`,
  );
}

/** A connection whose origin nobody knows was made by this process itself. */
const OURS: Verdict = { kind: "served", by: "self" };

/** Tells a client why it is not served; its dialect is not known yet. */
function turnAway(
  connection: Connection,
  refusal: OrchestratorError,
  mayLinger: boolean = true,
): StreamHandlers {
  connection.write(Buffer.from(`${encodeError(refusal, false)}\n`));
  if (mayLinger) connection.finish();
  else connection.close();
  return DISCARD;
}
