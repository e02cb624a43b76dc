//! Rates: `60/m` is 60 in each minute.

use std::time::Duration;

/// The largest number in a rate.
const MAX_RATE: u32 = 1_000_000;

/// A number and the time it is for: `60/m` is (60, one minute). The time is `s`, `m`, `h` or `d`. The error is for people.
pub fn parse_rate(text: &str) -> Result<(u32, Duration), String> {
    let wrong = || {
        let shown: String = text.chars().take(40).collect();
        format!("'{shown}' is not a rate: write a number from 1 to {MAX_RATE} and a time, like 5/s, 60/m, 1000/h or 5000/d")
    };
    let (count, unit) = text.trim().split_once('/').ok_or_else(wrong)?;
    let seconds = match unit.trim() {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let count: u32 = count.trim().parse().map_err(|_| wrong())?;
    if !(1..=MAX_RATE).contains(&count) {
        return Err(wrong());
    }
    Ok((count, Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_a_number_and_a_time() {
        assert_eq!(parse_rate("60/m"), Ok((60, Duration::from_secs(60))));
        assert_eq!(parse_rate(" 5 / s "), Ok((5, Duration::from_secs(1))));
        for bad in ["", "60", "0/m", "-1/m", "60/minute", "x/s", "1.5/s", "99999999/s", "/s", "5/y"] {
            assert!(parse_rate(bad).unwrap_err().contains("is not a rate"), "{bad}");
        }
    }
}
