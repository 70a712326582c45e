/**
 * What a comparison with another commit says: a table for people, an object for programs, and the
 * exit status.
 */

import { median } from '../harness/question.js';
import { amount, plainTable } from '../harness/text.js';
import { type FigureResult, WITHIN } from './compare.js';
import { CONFIDENCE, relativeWidth } from './interval.js';

export interface QuestionResult {
  name: string;
  tookMs: number;
  figures: FigureResult[];
}

export interface Verdict {
  /** Undefined: no ratio was asked for. */
  atLeast: number | undefined;
}

export const EXIT = { fine: 0, below: 1, cannotStart: 2, notReached: 3 } as const;

/** Whether the figure is shown to miss the ratio that is wanted. */
function isBelow({ interval }: FigureResult, { atLeast }: Verdict): boolean {
  return atLeast !== undefined && interval !== null && interval.high < atLeast;
}

export function exitStatus(results: readonly QuestionResult[], verdict: Verdict): number {
  const figures = results.flatMap((result) => result.figures);
  if (figures.some((figure) => isBelow(figure, verdict))) return EXIT.below;
  const isDone = (figure: FigureResult) => figure.isWithin && figure.error === undefined;
  return figures.every(isDone) ? EXIT.fine : EXIT.notReached;
}

export function tableText(result: QuestionResult, oldName: string, verdict: Verdict): string {
  const table = plainTable({
    title: `${result.name}: this checkout against ${oldName}`,
    columns: [
      '',
      oldName,
      'here',
      'ratio',
      `${CONFIDENCE * 100} % interval`,
      'pairs',
      'interval is',
      ...(verdict.atLeast === undefined ? [] : [`at least ${verdict.atLeast}`]),
    ],
    rows: result.figures.map((figure) => [
      figure.figure.label,
      amount(median(figure.old)),
      amount(median(figure.new)),
      figure.interval === null ? '–' : figure.interval.median.toFixed(3),
      intervalText(figure),
      String(figure.ratios.length),
      widthText(figure),
      ...(verdict.atLeast === undefined ? [] : [verdictText(figure, verdict.atLeast)]),
    ]),
    note: `A ratio above 1 means that this checkout is better. ${Math.round(result.tookMs / 1000)} s.`,
  });
  const errors = new Set(result.figures.flatMap(({ error }) => error ?? []));
  return [table, ...[...errors].map((error) => `failed: ${error}`)].join('\n');
}

function intervalText({ interval }: FigureResult): string {
  if (interval === null) return '–';
  return `${interval.low.toFixed(3)}–${interval.high.toFixed(3)}`;
}

function widthText({ interval, isWithin, error }: FigureResult): string {
  if (error !== undefined) return 'failed';
  if (interval === null) return 'none: too few pairs';
  const limit = `${WITHIN * 100} %`;
  if (isWithin) return `within ${limit}`;
  return `NOT within ${limit}: ${(relativeWidth(interval) * 100).toFixed(1)} %`;
}

function verdictText({ interval }: FigureResult, atLeast: number): string {
  if (interval === null) return '–';
  if (interval.low >= atLeast) return 'yes';
  if (interval.high < atLeast) return 'NO';
  return `open: the median is ${interval.median >= atLeast ? 'above' : 'below'}`;
}

export function reportObject(results: readonly QuestionResult[], verdict: Verdict) {
  return {
    confidence: CONFIDENCE,
    within: WITHIN,
    atLeast: verdict.atLeast ?? null,
    exitStatus: exitStatus(results, verdict),
    questions: results.map(({ name, tookMs, figures }) => ({
      name,
      tookMs,
      figures: figures.map((each) => ({
        label: each.figure.label,
        key: each.figure.key,
        better: each.figure.better,
        pairs: each.ratios.length,
        medianOld: each.old.length === 0 ? null : median(each.old),
        medianNew: each.new.length === 0 ? null : median(each.new),
        ratio: each.interval,
        isWithin: each.isWithin,
        isBelow: isBelow(each, verdict),
        error: each.error ?? null,
        old: each.old,
        new: each.new,
      })),
    })),
  };
}
