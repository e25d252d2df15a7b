//! The packet rules of a node, counted.

/// The rules of one network namespace as they were at one time, both families' and all tables'.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleCount {
    /// The node, or the namespace by its name.
    pub netns: String,
    /// How many rules there are.
    pub rules: u64,
    /// How many of them say what an earlier one of the same table says.
    pub duplicates: u64,
    /// The rule that is there most often, and how often; none without duplicates.
    pub worst: Option<(String, u64)>,
}

impl RuleCount {
    /// From so many duplicates on, somebody adds rules again and again.
    pub const MANY_DUPLICATES: u64 = 100;
    /// From so many rules on, each new connection and each change of a service takes noticeably long.
    pub const MANY_RULES: u64 = 50_000;
    /// What of a rule is shown, in characters.
    const SHOWN: usize = 160;

    /// `20003 rules, 19999 of them duplicates`, with the one that is there most often where there are many.
    #[must_use]
    pub fn shown(&self) -> String {
        let Self { rules, duplicates, worst, .. } = self;
        let mut shown = format!("{rules} rules, {duplicates} of them duplicates");
        if let Some((rule, times)) = worst.as_ref().filter(|_| *duplicates >= Self::MANY_DUPLICATES) {
            let rule: String = rule.chars().take(Self::SHOWN).collect();
            shown.push_str(&format!("; {times} times: {rule}"));
        }
        shown
    }

    /// What to do about many of them; `None` where there are not.
    #[must_use]
    pub const fn advice(&self) -> Option<&'static str> {
        if self.duplicates >= Self::MANY_DUPLICATES {
            Some(
                "Somebody adds this rule again and again; find who, then take the copies away: every packet passes them \
                 one by one.",
            )
        } else if self.rules >= Self::MANY_RULES {
            Some(
                "Each new connection passes them one by one, and each change of a service writes them all; nftables mode \
                 of kube-proxy scales better.",
            )
        } else {
            None
        }
    }
}
