//! `metrics.csv`: the numbers of `metrics.jsonl` as a table, for spreadsheets and plotting programs. It is
//! made anew from the JSON lines when a run goes on.

use super::Event;

/// The first line.
pub(super) const HEADER: &str =
    "step,loss,lr,grad_norm,tokens,tokens_per_second,mfu,rss,peak_rss,held_out_loss,bits_per_byte,relation\n";

/// The row of an event, with its line feed; none for events without numbers. What an event does not say, and
/// numbers that are none, are empty cells.
pub(super) fn row(event: &Event) -> Option<String> {
    let cells: [Option<String>; 12] = match event {
        Event::Train(train) => [
            Some(train.step.to_string()),
            float(train.loss),
            float(train.lr),
            float(train.grad_norm),
            Some(train.tokens.to_string()),
            float(train.tokens_per_second),
            train.mfu.and_then(float),
            train.rss.map(|bytes| bytes.to_string()),
            train.peak_rss.map(|bytes| bytes.to_string()),
            None,
            None,
            train.relation().and_then(float),
        ],
        Event::Eval { step, loss, bits_per_byte, .. } => {
            let mut cells = [const { None }; 12];
            cells[0] = Some(step.to_string());
            (cells[9], cells[10]) = (float(*loss), float(*bits_per_byte));
            cells
        }
        _ => return None,
    };
    Some(cells.map(Option::unwrap_or_default).join(",") + "\n")
}

fn float(x: f64) -> Option<String> {
    x.is_finite().then(|| x.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::Train;
    use super::*;

    #[test]
    fn rows_have_the_columns_of_the_header() {
        let train = Event::Train(Train {
            step: 3,
            loss: 2.5,
            lr: 1e-3,
            grad_norm: f64::NAN,
            tokens: 99,
            tokens_per_second: 10.5,
            mfu: None,
            rss: Some(7),
            peak_rss: Some(8),
            metrics: [("relation".to_string(), 0.125)].into(),
        });
        let eval = Event::Eval { step: 4, loss: 2.0, bits_per_byte: 1.5, sample: "a,b\n".to_string() };
        let rows = [row(&train).unwrap(), row(&eval).unwrap()];
        assert_eq!(rows, ["3,2.5,0.001,,99,10.5,,7,8,,,0.125\n", "4,,,,,,,,,2,1.5,\n"]);
        let columns = |line: &str| line.matches(',').count();
        assert!(rows.iter().all(|row| columns(row) == columns(HEADER)));
        assert_eq!(row(&Event::Skip { step: 1, reason: String::new() }), None);
    }
}
