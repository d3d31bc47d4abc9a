// All pages but the first one.
import type { Shown } from './main'
import { ComparePage } from './pages/compare'
import { ConstantsPage } from './pages/constants'
import { FiguresPage } from './pages/figures'

export function Pages({ page, run, runs, mode }: Shown) {
  if (page === 'compare') return <ComparePage runs={runs} mode={mode} />
  if (run && page === 'constants') return <ConstantsPage run={run} />
  if (run && page === 'figures') return <FiguresPage run={run} />
  return <div class="page"><section class="empty"><h2>No such page</h2><p>Nothing is called \u201c{page}\u201d here.</p></section></div>
}
