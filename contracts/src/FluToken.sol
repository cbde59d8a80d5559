// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/// @title FLU, the token of Fluence.
/// @notice 100,000,000 FLU are minted once, here, and never again: burning is the only change of supply.
/// @dev Rule: no owner, no minter, no pause, no upgrade. Permit (EIP-2612) so that a deposit is one transaction.
contract FluToken is ERC20, ERC20Burnable, ERC20Permit {
    /// @notice The most there ever is, in units of 1e-18 FLU.
    uint256 public constant CAP = 100_000_000e18;

    /// @param treasury Receives the whole supply, to be allocated from there.
    constructor(address treasury) ERC20("Fluence", "FLU") ERC20Permit("Fluence") {
        _mint(treasury, CAP);
    }
}
