// All pages but the first one.
import type { Shown } from './main'
import { ComparePage } from './pages/compare'
import { ConstantsPage } from './pages/constants'
import { ExplorationPage } from './pages/exploration'
import { FiguresPage } from './pages/figures'
import { FitPage } from './pages/fit'
import { LedgerPage } from './pages/ledger'
import { OperatorsPage } from './pages/operators'
import { ServingPage } from './pages/serving'
import { Start } from './pages/start'
import { TimelinePage } from './pages/timeline'
import { WhatIfPage } from './pages/whatif'

export function Pages({ page, run, runs, mode, given, add }: Shown) {
  if (page === 'ledger') return <LedgerPage engines={given.ledger} exported={given.exported} />
  if (page === 'fit' && !given.exported) return <FitPage run={run} mode={mode} />
  if (page === 'serving') return <ServingPage given={given} run={run} mode={mode} />
  if (page === 'exploration') return <ExplorationPage given={given} mode={mode} add={add} />
  if (!run) return <Start given={given} add={add} />
  if (page === 'compare') return <ComparePage runs={runs} mode={mode} />
  if (page === 'constants') return <ConstantsPage run={run} />
  if (page === 'figures') return <FiguresPage run={run} />
  if (run.result.view && page === 'operators') return <OperatorsPage key={run.id} run={run} mode={mode} />
  if (run.result.view && page === 'timeline') return <TimelinePage key={run.id} run={run} mode={mode} exported={given.exported} />
  if (run.result.view && page === 'whatif') return <WhatIfPage run={run} content={given} mode={mode} />
  return <div class="page"><section class="empty"><h2>No such page</h2><p>Nothing is called “{page}” here{!run.result.view ? ', or this file has no view: simulate again' : ''}.</p></section></div>
}
