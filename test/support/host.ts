// A system that does nothing by itself: processes that a test ends, and a clock turned by hand.

import type { Host, SpawnRequest } from "../../src/host.ts";

/** One process that was started; the test decides what becomes of it and of its group. */
export interface FakeProcess {
  readonly pid: number;
  readonly request: SpawnRequest;
  /** Pids of its group, its own included while it lives. */
  readonly group: Set<number>;
  readonly signals: string[];
}

export class FakeHost implements Host {
  readonly processes: FakeProcess[] = [];
  /** Thrown by the next spawn. */
  fault: unknown;
  permitsNice = true;
  readonly niced: number[] = [];
  #nowMs = 0;
  #timers: { at: number; action: () => void }[] = [];

  spawn(request: SpawnRequest): { pid: number; releaseOutput(): void } {
    if (this.fault !== undefined) throw this.fault;
    const pid = 100 + this.processes.length;
    this.processes.push({ pid, request, group: new Set([pid]), signals: [] });
    return { pid, releaseOutput() {} };
  }

  signalGroup(pgid: number, signal: string): boolean {
    const process = this.processes.find(({ pid }) => pid === pgid);
    if (process === undefined || process.group.size === 0) return false;
    process.signals.push(signal);
    return true;
  }

  groupMembers(pgid: number): number[] {
    return [...(this.processes.find(({ pid }) => pid === pgid)?.group ?? [])];
  }

  setPriority(_pid: number, nice: number): void {
    if (!this.permitsNice) throw Object.assign(new Error("EACCES"), { code: "EACCES" });
    this.niced.push(nice);
  }

  now(): number {
    return this.#nowMs;
  }

  after(ms: number, action: () => void): () => void {
    const timer = { at: this.#nowMs + ms, action };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  /** Turns the clock; timers fire in their order. */
  turn(ms: number): void {
    const until = this.#nowMs + ms;
    for (;;) {
      const due = this.#timers.filter(({ at }) => at <= until).sort((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.#timers = this.#timers.filter((other) => other !== due);
      this.#nowMs = due.at;
      due.action();
    }
    this.#nowMs = until;
  }

  get timers(): number {
    return this.#timers.length;
  }
}
